"""Tests the setting REALM_TRACES_ENDPOINT, the URL to which traces of publishes are sent. By
default it is empty, and there are no traces. It is refused if it isn't a URL, or if the library
that sends traces is missing."""

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


def test_an_endpoint_that_is_not_a_url_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="REALM_TRACES_ENDPOINT is 'collector:4318'"):
        traces_endpoint("collector:4318")


def test_the_error_for_a_missing_library_names_the_pip_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "http://127.0.0.1:4318/v1/traces"
    assert traces_endpoint(url) == url
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'realm-server\[tracing\]'"):
        traces_endpoint(url)


def test_a_span_outside_of_a_trace_is_not_recorded() -> None:
    with override_settings(REALM_TRACES_ENDPOINT="http://127.0.0.1:1/v1/traces"):
        with spans.span("lock"):
            assert spans.current() == ""
