"""Checks REALM_TRACES_ENDPOINT, the address that receives traces."""

from importlib.util import find_spec

from django.core.exceptions import ImproperlyConfigured

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def traces_endpoint(url: str) -> str:
    """Checks and returns the value of REALM_TRACES_ENDPOINT. Raises ImproperlyConfigured if the
    value isn't a URL, or if OpenTelemetry is not installed."""
    if not url:
        return ""
    if not url.startswith(("http://", "https://")):
        expected = "expected the URL of an OTLP collector, such as http://10.0.0.5:4318/v1/traces"
        raise ImproperlyConfigured(f"REALM_TRACES_ENDPOINT is {url!r}; {expected}")
    if not _installed():
        raise ImproperlyConfigured(
            "REALM_TRACES_ENDPOINT is set, but OpenTelemetry is not installed: "
            "pip install 'realm-server[tracing]'"
        )
    return url


def _installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        # A parent package of the exporter is missing.
        return False
