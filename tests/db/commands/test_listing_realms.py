"""Tests that the command `realms` lists published realms below their sources, and that the commands
for realms have help texts."""

from datetime import timedelta

import pytest
from django.core.management import load_command_class
from django.utils import timezone

from notifications.models import Replica, ReplicaGeneration
from realms.models import Realm
from tests.support import make
from tests.support.commands import run
from tests.support.web import ORIGIN

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "base")]

PAGE = "http://ada.localhost:4201/"
COMMANDS = (
    "realms", "import_realm", "publish_realm", "unpublish_realm", "rollback_realm", "delete_realm",
    "verify_coherence",
)  # fmt: skip


@pytest.mark.parametrize("columns", ["20", "80", "140"])
def test_realms_lists_published_realms_below_their_sources(
    source: Realm, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    bob = make.user("bob")
    long = f"{ORIGIN}/bob/{'a-very-long-name-' * 5}/"
    lights = make.source(long, bob, {"a.md": b""})
    make.publish(lights, "http://lights.localhost:4201/")
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}")
    make.publish(source, PAGE)
    make.publish(source, f"{PAGE}two/")
    now = timezone.now()
    for name, state, ago in (("a", "live", 0), ("b", "listening", 0), ("c", "live", 90)):
        replica = Replica.objects.create(
            name=name, address="http://127.0.0.1", state=state, sidecar_pid=1,
            reported_at=now - timedelta(seconds=ago),
        )  # fmt: skip
        ReplicaGeneration.objects.create(
            replica=replica, realm_url=PAGE, generation=3, applied_at=now
        )

    lines = [line.split() for line in run("realms").splitlines()]
    assert lines[0] == ["realm", "owner", "files", "gen", "pages", "a", "b", "c"]
    assert lines[1] == ["localhost:4201/ada/site/", "ada", "5", "3", "-", "-", "-", "-"]
    # The publish at `two/`, below this realm's URL, has raised this realm's generation to 3.
    assert lines[2] == ["ada.localhost:4201/", "ada", "as", "of", "3", "3", "-", "3", "3", "3"]
    assert lines[3][:5] == ["ada.localhost:4201/two/", "ada", "as", "of", "3"]
    assert lines[4][:4] == ["localhost:4201/base/", "-", lines[4][2], "2"]
    assert lines[5][0] == long.removeprefix("http://")
    assert lines[6][:5] == ["lights.localhost:4201/", "bob", "as", "of", "2"]
    assert [" ".join(line) for line in lines[7:]] == [
        "replica b is listening",
        "replica c has not reported for a while",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_each_of_its_options_has_a_help_text(command: str) -> None:
    parser = load_command_class("realms", command).create_parser("manage.py", command)
    assert len(parser.description or "") > 20
    own = [a for a in parser._actions if a.option_strings and not a.help]
    assert own == []
    assert command in parser.format_help()
