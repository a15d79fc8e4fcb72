"""The log: text for people, JSON for collectors; a line that repeats is counted instead, and no key gets out."""

import logging
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, TextIO

from pythonjsonlogger.json import JsonFormatter

from sidecar.errors import masked
from sidecar.kit.clock import Clock
from sidecar.kit.request_id import request_id

TEXT = "%(asctime)s %(levelname)-7s %(message)s"
JSON = "%(timestamp)s %(levelname)s %(name)s %(message)s"
NAMES = {"timestamp": "time", "levelname": "level", "name": "logger"}

SAID_AT_MOST = 5
WITHIN = 10.0
"""Seconds in which a message is said ``SAID_AT_MOST`` times."""

REMEMBERED = 1000
"""Messages that are counted at once. There are fewer in the code, but a library may make its messages as it goes."""


def set_up(level: str, form: str, clock: Clock, *, stream: TextIO | None = None) -> None:
    """Log to standard error from ``level`` on, as ``text``, ``json`` or ``auto``: text on a terminal."""
    stream = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    handler = Lines(stream, Repeats(clock))
    handler.setFormatter(Text(TEXT) if as_text else Json(JSON, rename_fields=NAMES, timestamp=True))  # UTC, ISO 8601
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Text(logging.Formatter):
    """Text without keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, its message, arguments and traceback masked as they will be seen."""
        return masked(super().format(record))


class Json(JsonFormatter):
    """JSON without keys."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Mask every text before it is encoded: afterwards a key may hide behind an escape."""
        found: dict[str, Any] = without_keys(super().process_log_record(log_data))
        return found


def without_keys(value: Any) -> Any:
    """Return ``value`` with every text in it masked; what JSON does not know becomes text."""
    match value:
        case None | bool() | int() | float():
            return value
        case datetime():
            return value.isoformat()
        case dict():
            return {masked(str(name)): without_keys(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [without_keys(inner) for inner in value]
        case _:
            return masked(str(value))


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines, but not those that repeat too often."""

    def __init__(self, stream: TextIO, repeats: "Repeats") -> None:
        super().__init__(stream)
        self._repeats = repeats

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record`` unless it repeats, and before it what is to be said of others that did."""
        for said in self._repeats.over():
            super().emit(said)
        if self._repeats.may_say(record):
            caller_says = request_id.get()
            if caller_says is not None:
                record.request_id = caller_says
            super().emit(record)

    def close(self) -> None:
        """Say the rest."""
        for said in self._repeats.over(at_once=True):
            super().emit(said)
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the library's name
        """Say that a line could not be written; the library would show its arguments as they are."""
        with suppress(OSError, ValueError):  # a stream that is closed or full is no reason to fail the program
            self.stream.write(f"a log line could not be written ({record.pathname}:{record.lineno})\n")


class Template(NamedTuple):
    """What makes two lines alike: who says them, how severely, and their text before anything is put in."""

    logger: str
    level: int
    text: str


class Repeats:
    """Counts lines that are alike. After ``SAID_AT_MOST`` in ``WITHIN`` seconds they are kept back until these are over.

    Critical ones never are. Once the time is over, how many were kept back is said with the next line, or at the end.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[Template, int] = {}
        self._began: dict[Template, float] = {}  # in this order

    def may_say(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be written, and count it."""
        if record.levelno >= logging.CRITICAL:
            return True
        template = Template(record.name, record.levelno, str(record.msg)[:200])
        if template not in self._began:
            if len(self._began) >= REMEMBERED:
                return True  # over() makes room as time passes
            self._began[template], self._counts[template] = self._clock(), 0
        self._counts[template] += 1
        return self._counts[template] <= SAID_AT_MOST

    def over(self, *, at_once: bool = False) -> list[logging.LogRecord]:
        """Return lines that say how many were kept back in times that are over; ``at_once``, in all."""
        found, now = [], self._clock()
        while self._began:
            template, began = next(iter(self._began.items()))
            if not at_once and now < began + WITHIN:
                break
            del self._began[template]
            kept_back = self._counts.pop(template) - SAID_AT_MOST
            if kept_back > 0:
                found.append(summary(template, kept_back))
        return found


def summary(template: Template, kept_back: int) -> logging.LogRecord:
    """Return a line that stands for those that were not written."""
    text = f"{template.text} (suppressed {kept_back} like it)"
    return logging.LogRecord(template.logger, template.level, "", 0, text, None, None)
