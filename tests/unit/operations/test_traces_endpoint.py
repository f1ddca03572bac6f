"""REALM_TRACES_ENDPOINT: off by default, and refused where traces can't be sent."""

import sys

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from notifications.tracing import spans
from settings.tracing import traces_endpoint


def test_traces_are_off_without_an_endpoint() -> None:
    assert traces_endpoint("") == ""
    assert not spans.tracing()
    with spans.trace("publish"), spans.span("lock"):
        assert spans.current() == ""


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="REALM_TRACES_ENDPOINT is 'collector:4318'"):
        traces_endpoint("collector:4318")


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:4318/v1/traces"
    assert traces_endpoint(url) == url
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'realm-server\[tracing\]'"):
        traces_endpoint(url)


def test_a_span_outside_of_a_trace_is_none() -> None:
    with override_settings(REALM_TRACES_ENDPOINT="http://127.0.0.1:1/v1/traces"):
        with spans.span("lock"):
            assert spans.current() == ""
