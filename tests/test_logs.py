"""The log's lines."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from sidecar import logs
from sidecar.kit.request_id import request_id
from tests.fakes import KEY, SECRET, FakeClock

log = logging.getLogger("sidecar.x")


class Terminal(io.StringIO):
    """What people look at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The root logger is everybody's: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logging_to(stream: io.StringIO, clock: FakeClock, form: str = "text", level: str = "info") -> None:
    logs.set_up(level, form, clock, stream=stream)


def parsed(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def said(stream: io.StringIO) -> list[str]:
    """Return the messages of text lines, without what comes before."""
    return [line.split(" WARNING ", 1)[-1] for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("form", ["json", "auto"])
def test_it_is_json_for_collectors(form: str, clock: FakeClock) -> None:
    """A line per record, with what a call adds; `auto` chooses it where the stream is no terminal."""
    stream = io.StringIO()
    logging_to(stream, clock, form)
    log.info("a line\nof %s", "two", extra={"stripe_request_id": "req_1", "counts": {"a": [1, None, 2.5, True]}})
    log.debug("too little")
    (found,) = parsed(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", str(found.pop("time")))
    assert found == {
        "level": "INFO",
        "logger": "sidecar.x",
        "message": "a line\nof two",
        "stripe_request_id": "req_1",
        "counts": {"a": [1, None, 2.5, True]},
    }


@pytest.mark.parametrize(("form", "stream"), [("text", io.StringIO), ("auto", Terminal)])
def test_it_is_text_for_people(form: str, stream: type[io.StringIO], clock: FakeClock) -> None:
    """Time, severity, message."""
    terminal = stream()
    logging_to(terminal, clock, form, "warning")
    log.warning("a line")
    log.info("too little")
    assert terminal.getvalue().endswith(" WARNING a line\n")
    assert terminal.getvalue().count("\n") == 1


def test_it_goes_to_standard_error(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for answers."""
    logs.set_up("info", "text", clock)
    log.info("a line")
    assert (capsys.readouterr().out, log.name) == ("", "sidecar.x")


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_key_gets_out(form: str, clock: FakeClock) -> None:
    """Wherever it stands: in a message, an argument, an extra field, behind an escape, in a traceback."""
    stream = io.StringIO()
    logging_to(stream, clock, form)
    log.info(f"key {KEY}\n{KEY}")  # noqa: G004 -- that is what might happen
    log.info("key %s and %r", SECRET, {"a": KEY})
    log.info("more", extra={"it": KEY, "them": [KEY, {KEY: (SECRET,)}], "thing": ValueError(KEY)})
    try:
        int(f"no good: {KEY}")
    except ValueError:
        log.exception("oh", stack_info=True)
    text = stream.getvalue()
    assert "Planted" not in text
    assert "sk_test_***" in text
    assert "with base 10: 'no good: sk_test_***'" in text
    assert len(text.splitlines()) >= 4


def test_a_line_that_cannot_be_made_shows_nothing(clock: FakeClock) -> None:
    """Not what was to be put in it; where to look is said."""
    stream = io.StringIO()
    logging_to(stream, clock)
    log.info("%d", KEY)
    assert re.fullmatch(r"a log line could not be written \(.*test_logs\.py:\d+\)\n", stream.getvalue())
    stream.close()
    log.info("nobody can read this")


def test_who_repeats_is_counted_instead(clock: FakeClock) -> None:
    """Five in ten seconds, whatever is put in; then the number of the others comes with the next line of anybody."""
    stream = io.StringIO()
    logging_to(stream, clock)
    for number in range(128):
        log.warning("refused %s", number)
        clock.advance(0.01)
    assert said(stream) == [f"refused {number}" for number in range(5)]
    log.error("refused %s", "is another line")
    logging.getLogger("sidecar.y").warning("refused %s", "by another")
    clock.advance(9)
    log.warning("something else")
    assert said(stream)[-2:] == ["refused %s (suppressed 123 like it)", "something else"]
    log.warning("refused %s", "again")
    assert said(stream)[-1] == "refused again"
    clock.advance(60)
    log.warning("the end")
    assert len(said(stream)) == 5 + 2 + 2 + 1 + 1, "what was not kept back is not spoken of"


def test_critical_lines_all_come(clock: FakeClock) -> None:
    """There is no second chance to read them."""
    stream = io.StringIO()
    logging_to(stream, clock)
    for _ in range(20):
        log.critical("it burns")
    assert stream.getvalue().count("it burns") == 20


def test_what_was_kept_back_is_said_in_the_end(clock: FakeClock) -> None:
    """Also when nothing else is logged before the process ends."""
    stream = io.StringIO()
    logging_to(stream, clock)
    for _ in range(7):
        log.warning("again")
    logging.getLogger().handlers[0].close()
    assert said(stream) == ["again"] * 5 + ["again (suppressed 2 like it)"]


def test_its_memory_is_bounded(clock: FakeClock) -> None:
    """Messages that a library makes as it goes are not counted without end; after a while they are forgotten."""
    repeats = logs.Repeats(clock)

    def may_say(text: str) -> bool:
        return repeats.may_say(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))

    assert all(may_say(f"{number}{'x' * 1000}") for number in range(logs.REMEMBERED + 50))
    assert len(repeats._began) == len(repeats._counts) == logs.REMEMBERED
    assert all(may_say("too many to be counted") for _ in range(logs.SAID_AT_MOST + 1))
    clock.advance(logs.WITHIN)
    assert repeats.over() == []
    assert len(repeats._began) == len(repeats._counts) == 0
    assert [may_say("few") for _ in range(logs.SAID_AT_MOST + 1)] == [True] * logs.SAID_AT_MOST + [False]


@pytest.mark.parametrize("form", ["json", "text"])
def test_lines_name_the_request_that_they_are_about(form: str, clock: FakeClock) -> None:
    """By what its caller calls it; in JSON, where machines look for it."""
    stream = io.StringIO()
    logging_to(stream, clock, form)
    token = request_id.set("abc-1")
    log.info("within")
    request_id.reset(token)
    log.info("without")
    if form == "json":
        within, without = parsed(stream)
        assert within["request_id"] == "abc-1"
        assert "request_id" not in without
    else:
        assert len(said(stream)) == 2
