"""Receives packs with nothing of ours: pip install paho-mqtt zstandard, python receiver.py HOST [PORT [TOPIC]]."""

import json
import sys

import paho.mqtt.client as mqtt
import zstandard
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT, TOPIC = sys.argv[1:] + ["", "1883", "pole/1/+/data/+"][len(sys.argv) - 1 :]
came = set()  # topic, epoch, seq; what is to outlive this program belongs in a database
highest = {}  # by topic and epoch the highest seq that must have come


def records(pack):
    """Resolve names, times and units: base fields hold until they are set anew (RFC 8428 section 4.6)."""
    base = {"bn": "", "bt": 0, "bu": ""}
    for record in pack:
        base |= {key: record[key] for key in base if key in record}
        value = next(record[key] for key in ("v", "vb", "vs") if key in record)
        time, unit = base["bt"] + record.get("t", 0), record.get("u", base["bu"])
        yield {"name": base["bn"] + record.get("n", ""), "time": time, "value": value, "unit": unit}


def expect(topic, epoch, seq):
    """Tell what is missing of an epoch up to seq. What was before the first pack of a topic is not missed."""
    begun = any(known == topic for known, _ in highest)
    passed = highest.get((topic, epoch), 0 if begun else seq)
    for number in range(passed + 1, seq + 1):
        if (topic, epoch, number) not in came:
            print("missing", topic, epoch, number, file=sys.stderr, flush=True)
    highest[topic, epoch] = max(passed, seq)


def on_message(_client, _userdata, message):
    """Print a pack once. What is missing may come later: after an outage the backlog comes behind what is new."""
    packed = message.payload.startswith(bytes.fromhex("28b52ffd"))
    pack = json.loads(zstandard.decompress(message.payload) if packed else message.payload)
    number = message.topic, pack[0]["epoch"], pack[0]["seq"]
    part = *number, pack[0].get("part")  # of a pack that was too large for the broker
    if part in came:
        return
    came.update((number, part))
    before = message.topic, *map(int, pack[0].get("after", "0:0").split(":"))
    for must in [before, number] if before[:2] in highest else [number]:
        expect(*must)
    for record in records(pack):
        print(json.dumps(record), flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="receiver-py", protocol=mqtt.MQTTv5)
client.on_connect = lambda *_: client.subscribe(TOPIC, qos=1)
client.on_message = on_message
session = Properties(PacketTypes.CONNECT)
session.SessionExpiryInterval = 7 * 86_400  # while we are away the broker keeps what comes
client.connect(HOST, int(PORT), clean_start=False, properties=session)  # before it: username_pw_set(), tls_set()
client.loop_forever()
