"""Tests how the settings parse environment variables, and which error an invalid value causes."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from settings.environment import read_environment


def test_one_error_names_every_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "REALM_THREADS": "0",
        "REALM_STALENESS_BOUND": "nan",
        "REALM_BODY_BYTES": "64 MiB",
        "REALM_SWEEP_SECONDS": "-1",
        "REALM_INDEX_SOURCES": "perhaps",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as raised:
        read_environment()
    said = str(raised.value).split("; ")
    assert len(said) == len(wrong)
    for name, value in wrong.items():
        assert any(each.startswith(f"{name} is {value!r}: ") for each in said)


@pytest.mark.parametrize("lease", [None, "90"])
def test_a_lease_must_last_longer_than_one_card_may_render(
    monkeypatch: pytest.MonkeyPatch, lease: str | None
) -> None:
    monkeypatch.setenv("REALM_RENDER_SECONDS", "90")
    if lease is not None:
        monkeypatch.setenv("REALM_BATCH_LEASE_SECONDS", lease)
    with pytest.raises(
        ImproperlyConfigured, match=r"^REALM_BATCH_LEASE_SECONDS is .*, which is 90$"
    ):
        read_environment()
    monkeypatch.setenv("REALM_BATCH_LEASE_SECONDS", "91")
    assert read_environment().REALM_BATCH_LEASE_SECONDS == 91


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REALM_THREADS", "REALM_PUBLIC_ORIGIN", "REALM_BOARD"):
        monkeypatch.setenv(name, "")
    env = read_environment()
    assert (env.REALM_THREADS, env.REALM_BOARD) == (4, None)
    assert env.REALM_PUBLIC_ORIGIN == "http://localhost:4201"


@pytest.mark.parametrize(("text", "meant"), [("1", True), ("0", False), ("true", True)])
def test_a_boolean_variable_is_parsed(
    monkeypatch: pytest.MonkeyPatch, text: str, meant: bool
) -> None:
    monkeypatch.setenv("REALM_LEGACY_CHANNELS", text)
    assert read_environment().REALM_LEGACY_CHANNELS is meant
