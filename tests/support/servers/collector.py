"""Runs a collector of traces, which stores the spans that OpenTelemetry's exporter sends over
HTTP."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """A span that the collector has received. `trace`, `key` and `parent` are the IDs of the trace,
    of this span and of its parent span. `began` and `ended` are in ns since 1970."""

    name: str
    trace: bytes
    key: bytes
    parent: bytes
    began: int
    ended: int
    process: int
    attributes: dict[str, Any]


class Collector:
    """A collector of traces. Exporters send spans to `url`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/traces"
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    @property
    def spans(self) -> list[Span]:
        """All spans that were received so far."""
        with self._lock:
            return list(self._spans)

    def named(self, name: str) -> list[Span]:
        """Returns the received spans that have this name."""
        return [each for each in self.spans if each.name == name]

    def take(self, body: bytes) -> None:
        """Stores the spans of a request's body."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                for each in scope.spans:
                    span = Span(
                        each.name, each.trace_id, each.span_id, each.parent_span_id,
                        each.start_time_unix_nano, each.end_time_unix_nano,
                        about["process.pid"], _attributes(each.attributes),
                    )  # fmt: skip
                    with self._lock:
                        self._spans.append(span)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def collector() -> Iterator[Collector]:
    """Runs a collector on a port of this machine until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            running.take(gzip.decompress(body) if packed else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Does nothing, so that requests aren't logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Collector(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
