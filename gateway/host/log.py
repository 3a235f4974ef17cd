"""A door: the log. Lines for a person on a terminal; under systemd, or into a pipe, one JSON object a line.

To log raises nothing where a line cannot be written: :mod:`gateway.__main__` sees to that for the standard error.
"""

import logging
import sys

import structlog


def start(level: int = logging.INFO) -> None:
    """Set the log up, from ``level`` on; it goes to standard error."""
    person = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("%H:%M:%S" if person else "iso", utc=not person),
    ]
    form: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if person
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    structlog.configure(
        processors=[*shared, *form],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
