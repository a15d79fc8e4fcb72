"""Mostly nobody listens to what is noted of a piece of work."""

from sidecar.kit.spans import Span, no_span


def test_no_span_keeps_nothing() -> None:
    """What is noted in one is not in the next."""
    with no_span("fetch") as span:
        assert span == Span()
        span.attributes["pages"] = 1
        span.headers["traceparent"] = "00"
    with no_span(None) as another:
        assert another == Span()
