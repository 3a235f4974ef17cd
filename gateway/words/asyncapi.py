"""The contract with a receiver, made from the models: a JSON Schema of each message, and an AsyncAPI document.

With them a receiver can be written without reading this code. Both use only what JSON Schema 2020-12 and draft 7,
which AsyncAPI 3.0 builds on, have in common.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaMode,
    JsonSchemaValue,
    models_json_schema,
)
from pydantic_core import core_schema

from gateway.words import messages
from gateway.words.thing import Thing

Schema = dict[str, Any]
Field = core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField

DIALECT = "https://json-schema.org/draft/2020-12/schema"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of message.

    Attributes:
        topic: below the pole's.
        title: in a few words.
        summary: what one must know to use it.
        models: its forms; one of them holds.
        action: what the pole does.
        content_type: MIME type.
        retain: the broker keeps the last one.
        zstd: it is compressed above 200 bytes.
        is_list: it is a list of the model.
    """

    topic: str
    title: str
    summary: str
    models: tuple[type[BaseModel], ...]
    action: str = "send"
    content_type: str = JSON
    retain: bool = False
    zstd: bool = False
    is_list: bool = False


CHANNELS: Mapping[str, Channel] = {
    "state": Channel(
        topic="state",
        title="How the pole is",
        summary='On change and once a minute. "gone" is the last will of the connection.',
        models=(messages.State, messages.Gone),
        retain=True,
    ),
    "catalogue": Channel(
        topic="catalogue/{dataset}",
        title="What the channels of a dataset mean",
        summary="A W3C Thing Description. On each connection, and when it grows.",
        models=(Thing,),
        content_type="application/td+json",
        retain=True,
        zstd=True,
    ),
    "data": Channel(
        topic="data/{dataset}",
        title="Readings of a dataset",
        summary="At least once, live data first. (epoch, seq) tells copies apart and shows what is missing. "
        'Dataset "configuration", of a pole with [remote], tells what became of each document.',
        models=(messages.Record,),
        content_type="application/senml+json",
        zstd=True,
        is_list=True,
    ),
    "alarm": Channel(
        topic="event/{class}",
        title="Something is wrong with the pole, or is over",
        summary="On change, of one subject once a minute at most, and again on each connection while it is raised.",
        models=(messages.Alarm,),
    ),
    "lost": Channel(
        topic="event/lost",
        title="What no receiver will get",
        summary="Packs that gave way, were refused or were damaged. It is told until the broker has it.",
        models=(messages.Lost,),
    ),
    "replayed": Channel(
        topic="event/replay",
        title="The answer to a replay",
        summary="After the packs themselves, which come on their own topic.",
        models=(messages.Replayed, messages.NotReplayed),
    ),
    "reported": Channel(
        topic="config/reported",
        title="Which configuration is in force",
        summary="Of a pole with [remote]. On each connection, and on change.",
        models=(messages.Reported,),
        retain=True,
    ),
    "replay": Channel(
        topic="command/replay",
        title="A request for packs that a receiver missed",
        summary="Who may ask is the broker's to decide. It must not be retained.",
        models=(messages.Replay,),
        action="receive",
    ),
}
PARAMETERS = {
    "pole": {"description": "Id of the pole: one level of letters, digits, - and _."},
    "dataset": {"description": "Name of the dataset: the unit of licence and of access."},
    "class": {
        "description": "What the alarm is about.",
        "enum": list(get_args(messages.Alarm.model_fields["event"].annotation)),
    },
}


def schemas() -> dict[str, Schema]:
    """Return the JSON Schema of each kind of message."""
    return {name: _alone(name, channel) for name, channel in CHANNELS.items()}


def document(prefix: str = "pole/1") -> Schema:
    """Return the AsyncAPI document; ``prefix`` is what all topics begin with."""
    definitions: Schema = {}
    payloads = {}
    for name, channel in CHANNELS.items():
        payloads[name], more = _payload(channel, "#/components/schemas/{model}")
        definitions |= more
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "polegate",
            "version": version("polegate"),
            "description": "What a smart light pole says and hears over MQTT. Pass over fields you do not know.",
        },
        "defaultContentType": JSON,
        "channels": {name: _channel(name, channel, prefix) for name, channel in CHANNELS.items()},
        "operations": {name: _operation(name, channel) for name, channel in CHANNELS.items()},
        "components": {
            "messages": {name: _message(name, channel, payloads[name]) for name, channel in CHANNELS.items()},
            "schemas": dict(sorted(definitions.items())),
        },
    }


class _Generate(GenerateJsonSchema):
    """Leaves out null, since what is not known is not sent; and what is sent has no defaults."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"]) if self.mode == "serialization" else super().default_schema(schema)

    def field_is_required(self, field: Field, total: bool) -> bool:  # noqa: FBT001  # pydantic's signature
        inner = field["schema"]
        if self.mode == "serialization" and inner["type"] == "default":
            return inner.get("default", ...) is not None
        return super().field_is_required(field, total)

    def field_title_should_be_set(self, schema: object) -> bool:
        del schema
        return False  # it would be the name again


def _payload(channel: Channel, ref: str) -> tuple[Schema, Schema]:
    """Return the schema of a message, and those it refers to."""
    mode: JsonSchemaMode = "serialization" if channel.action == "send" else "validation"
    refs, all_of_them = models_json_schema(
        [(model, mode) for model in channel.models], ref_template=ref, schema_generator=_Generate
    )
    found = [refs[model, mode] for model in channel.models]
    payload: Schema = messages.PACK | {"items": found[0]} if channel.is_list else _one_of(found)
    return payload, all_of_them["$defs"]


def _one_of(found: list[JsonSchemaValue]) -> Schema:
    return found[0] if len(found) == 1 else {"oneOf": found}


def _alone(name: str, channel: Channel) -> Schema:
    payload, definitions = _payload(channel, "#/$defs/{model}")
    head = {"$schema": DIALECT, "$id": f"urn:polegate:schema:1:{name}", "title": channel.title}
    return head | {key: value for key, value in payload.items() if key != "title"} | {"$defs": definitions}


def _channel(name: str, channel: Channel, prefix: str) -> Schema:
    address = f"{prefix}/{{pole}}/{channel.topic}"
    return {
        "address": address,
        "title": channel.title,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {key: PARAMETERS[key] for key in PARAMETERS if f"{{{key}}}" in address},
    }


def _operation(name: str, channel: Channel) -> Schema:
    operation: Schema = {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": channel.summary,
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "bindings": {"mqtt": {"qos": 1, "retain": channel.retain, "bindingVersion": "0.2.0"}},
    }
    if name == "replay":
        operation["reply"] = {"channel": {"$ref": "#/channels/replayed"}}
    return operation


def _message(name: str, channel: Channel, payload: Schema) -> Schema:
    message = {
        "name": name,
        "title": channel.title,
        "contentType": channel.content_type,
        "payload": payload,
        "bindings": {"mqtt": {"contentType": channel.content_type, "bindingVersion": "0.2.0"}},
    }
    if channel.zstd:
        ce = {"type": "string", "const": "zstd", "description": "MQTT 5: there where the payload is compressed."}
        message["headers"] = {"type": "object", "properties": {"ce": ce}}
    return message
