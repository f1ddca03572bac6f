"""What makes and sends spans: OpenTelemetry's objects, made when they are first needed."""

import atexit
import os
import socket
from functools import cache
from typing import Any

from django.conf import settings

#: How often spans are sent, and how long sending may take. A process that ends waits for it.
SEND_SECONDS = 1.0
GIVE_UP_SECONDS = 2


def flush() -> None:
    """Sends the spans of this process that have not been sent, before it ends."""
    if provider.cache_info().currsize:
        provider().force_flush()


@cache
def propagator() -> Any:
    """Turns spans into text and back, as W3C Trace Context says."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


@cache
def provider() -> Any:
    """What makes and sends spans. Begun with the first span and not before, so that a process that
    forks others, and makes none itself, hands them no thread."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": "realm-server",
            "service.instance.id": settings.REALM_REPLICA,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
        }
    )
    # The SDK would wait half a minute for a collector that is away, at the end of every command.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(settings.REALM_TRACES_ENDPOINT, timeout=GIVE_UP_SECONDS)
    sending = BatchSpanProcessor(exporter, schedule_delay_millis=SEND_SECONDS * 1000)
    provider.add_span_processor(sending)
    atexit.register(flush)
    return provider
