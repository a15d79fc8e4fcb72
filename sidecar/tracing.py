"""Traces of questions that leave memory, for OpenTelemetry. Imported only when they are wanted (extra ``otel``).

The exporter is set up by the standard variables, ``OTEL_EXPORTER_OTLP_ENDPOINT`` and its like. A question that memory
answers has no span; that it might have one costs it an object. No customer is named, and no error's text is kept.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from aiohttp import web
from aiohttp.typedefs import Handler
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sidecar import __version__
from sidecar.errors import SidecarError
from sidecar.kit.clock import Clock
from sidecar.kit.spans import Span

log = logging.getLogger(__name__)

FLUSH = 2.0
"""Seconds that spans may take to leave when the process ends."""

W3C = TraceContextTextMapPropagator()


class Asked:
    """A request that is being answered; it has a span from the moment on at which its answer leaves memory."""

    def __init__(self, request: web.Request, began: int) -> None:
        self.span: trace.Span | None = None
        self.answered = False
        self._request = request
        self._began = began
        self._noted: dict[str, set[str]] = {}

    def open(self, tracer: trace.Tracer) -> None:
        """Let there be a span, as a child of what the request says it is part of (W3C ``traceparent``)."""
        if self.span is None:
            resource = self._request.match_info.route.resource
            route = "other" if resource is None else resource.canonical
            parent = W3C.extract(dict(self._request.headers), Context())
            method = {"http.request.method": self._request.method, "http.route": route}
            self.span = tracer.start_span(
                f"{self._request.method} {route}", parent, trace.SpanKind.SERVER, method, start_time=self._began
            )

    def note(self, span: Span) -> None:
        """Add what was noted; a batch notes several of a kind."""
        for name, value in span.attributes.items():
            self._noted.setdefault(name, set()).add(str(value))

    def close(self, status: int, at: int) -> None:
        """End the span, if there is one."""
        self.answered = True
        if self.span is not None:
            self.span.set_attribute("http.response.status_code", status)
            for name, values in self._noted.items():
                self.span.set_attribute(name, sorted(values) if len(values) > 1 else min(values))
            self.span.end(at)


ASKED: ContextVar[Asked | None] = ContextVar("asked", default=None)
WITHIN: ContextVar[trace.Span | None] = ContextVar("within", default=None)
"""The request, and the span within it, that a task works for; a flight's task inherits them from who started it."""


class Tracing:
    """Makes spans and hands them to ``exporter``, from a thread of its own."""

    def __init__(self, exporter: SpanExporter, *, clock: Clock) -> None:
        named = Resource({SERVICE_NAME: "entitlement-sidecar"})
        resource = named.merge(OTELResourceDetector().detect())  # OTEL_SERVICE_NAME has the last word
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sidecar", __version__)
        self._clock = clock

    def _now(self) -> int:
        return int(self._clock() * 1e9)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note which request is answered."""
        asked, status = Asked(request, self._now()), 500
        token = ASKED.set(asked)
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            ASKED.reset(token)
            asked.close(status, self._now())

    @contextmanager
    def span(self, name: str | None) -> Iterator[Span]:
        """Trace a piece of work, if it is done for a request that is traced; see ``Spans``."""
        noted, asked = Span(), ASKED.get()
        if name is not None:
            yield from self._part(name, noted, asked)
        elif asked is None or asked.answered:
            yield noted
        else:
            asked.open(self._tracer)
            try:
                yield noted
            except SidecarError as error:
                noted.attributes["error.type"] = error.code
                raise
            finally:
                asked.note(noted)

    def _part(self, name: str, noted: Span, asked: Asked | None) -> Iterator[Span]:
        parent = WITHIN.get() or (None if asked is None else asked.span)
        if parent is None or not parent.is_recording():  # nobody waits any more, or nobody ever did
            yield noted
            return
        above = trace.set_span_in_context(parent, Context())
        part = self._tracer.start_span(name, above, trace.SpanKind.CLIENT, start_time=self._now())
        W3C.inject(noted.headers, trace.set_span_in_context(part, Context()))
        token = WITHIN.set(part)
        try:
            yield noted
        except BaseException as error:
            part.set_status(trace.StatusCode.ERROR)  # without its text, which may name a customer
            part.set_attribute("error.type", getattr(error, "code", type(error).__name__))
            raise
        finally:
            WITHIN.reset(token)
            part.set_attributes(noted.attributes)
            part.end(self._now())

    async def close(self) -> None:
        """Send what is left, for ``FLUSH`` seconds at most: a collector that hangs must not keep the process."""
        done, loop = asyncio.Event(), asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        # Not the loop's executor: its threads are waited for at the end.
        threading.Thread(target=shut_down, name="flush traces", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH):
                _ = await done.wait()
        except TimeoutError:
            log.warning("the last traces did not leave within %g s", FLUSH)


def tracing_to_otlp(clock: Clock) -> Tracing:
    """Return tracing that exports as the standard variables say, by OTLP over HTTP."""
    return Tracing(OTLPSpanExporter(), clock=clock)
