"""`manage.py check --deploy` finds settings that are wrong or unsafe."""

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

GOOD = {
    "REALM_SECRET_SEED": "0123456789abcdef0123456789abcdef",
    "REALM_PUBLIC_ORIGIN": "https://realms.example.com",
    "REALM_REPLICA_ADDRESS": "http://10.0.0.5:4201",
    "CELERY_BROKER_URL": "redis://broker:6379/0",
    "REALM_PUBLISH_DOMAINS": ["sites.example.org"],
    "REALM_USER_HOST": "example.com",
    "DATABASE_URL": "postgres://pooler/realms",
    "LISTEN_DATABASE_URL": "postgres://postgres/realms",
}


@pytest.fixture
def good(settings: Any, tmp_path: Path) -> Any:
    for name, value in GOOD.items():
        setattr(settings, name, value)
    settings.REALM_BOARD = tmp_path / "board"
    return settings


def found(good: Any) -> set[str]:
    messages = [each for each in run_checks(include_deployment_checks=True)
                if (each.id or "").startswith("realms.")]  # fmt: skip
    assert all(each.msg and each.hint for each in messages)
    return {str(each.id) for each in messages}


def test_good_settings_cause_no_message(good: Any) -> None:
    assert found(good) == set()


@pytest.mark.parametrize(("name", "value", "told"), [
    ("REALM_SECRET_SEED", "changeme", "001"),
    ("REALM_SECRET_SEED", "x" * 64, "001"),
    ("REALM_PUBLIC_ORIGIN", "https://realms.example.com/base", "002"),
    ("REALM_PUBLIC_ORIGIN", "https://realms.example.com?x", "002"),
    ("REALM_PUBLIC_ORIGIN", "https://user@realms.example.com", "002"),
    ("REALM_PUBLIC_ORIGIN", "realms.example.com", "002"),
    ("REALM_PUBLIC_ORIGIN", "https://realms.example.com:port", "002"),
    ("REALM_PUBLIC_ORIGIN", "https://Realms.example.com", "002"),
    ("REALM_PUBLIC_ORIGIN", "https://realms.example.com:443", "002"),
    ("REALM_PUBLIC_ORIGIN", "http://realms.example.com", "003"),
    ("REALM_REPLICA_ADDRESS", "10.0.0.5:4201", "004"),
    ("REALM_REPLICA_ADDRESS", "http:10.0.0.5", "004"),
    ("REALM_REPLICA_ADDRESS", "http://10.0.0.5:4201/x", "004"),
    ("REALM_REPLICA_ADDRESS", "", "004"),
    ("REALM_REPLICA_ADDRESS", "http://127.0.0.1:4201", "005"),
    ("REALM_REPLICA_ADDRESS", "http://[::1]:4201", "005"),
    ("CELERY_BROKER_URL", "rabbit://broker", "006"),
    ("CELERY_BROKER_URL", "broker:5672", "006"),
    ("CELERY_BROKER_URL", "memory://", "007"),
    ("REALM_BOARD", Path("/nowhere/at/all/board"), "008"),
    ("REALM_BOARD", Path("/dev/null/board"), "008"),
    ("REALM_PUBLISH_DOMAINS", ["https://sites.example.org"], "009"),
    ("REALM_PUBLISH_DOMAINS", ["sites.example.org", ""], "009"),
    ("REALM_PUBLISH_DOMAINS", [" sites.example.org"], "009"),
    ("REALM_PUBLISH_DOMAINS", ["com"], "010"),
    ("REALM_PUBLISH_DOMAINS", ["example.com"], "011"),
    ("REALM_USER_HOST", "exam:ple", "012"),
    ("REALM_USER_HOST", "", "012"),
    ("LISTEN_DATABASE_URL", "postgres://postgres/other", "013"),
])  # fmt: skip
def test_an_unsafe_setting_causes_its_message(good: Any, name: str, value: Any, told: str) -> None:
    setattr(good, name, value)
    assert found(good) == {f"realms.{told}"}


def test_the_default_settings_with_a_seed_cause_no_message(settings: Any, tmp_path: Path) -> None:
    settings.REALM_SECRET_SEED = GOOD["REALM_SECRET_SEED"]
    settings.REALM_BOARD = tmp_path / "board"
    assert found(settings) == set()


def test_a_board_in_a_data_folder_that_is_not_yet_made_is_accepted(
    good: Any, tmp_path: Path
) -> None:
    good.DATA_DIR = tmp_path / "new" / "data"
    good.REALM_BOARD = good.DATA_DIR / "board"
    assert found(good) == set()
    good.REALM_BOARD = good.DATA_DIR / "elsewhere" / "board"
    assert found(good) == {"realms.008"}


def test_the_check_command_fails_for_a_weak_seed(good: Any) -> None:
    good.REALM_SECRET_SEED = "short"
    with pytest.raises(SystemCheckError, match="REALM_SECRET_SEED is weak"):
        call_command("check", "--deploy")
