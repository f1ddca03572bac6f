"""Tests what a dry run of `rollback_realm` and `delete_realm` lists, and what a real run
changes."""

import pytest
from django.core.management import CommandError

from realms.models import Realm
from tests.support import make
from tests.support.commands import run
from tests.support.web import everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "base")]

PAGE = "http://ada.localhost:4201/"


def test_a_dry_run_of_a_rollback_lists_differences_and_changes_nothing(
    republished: Realm,
) -> None:
    before = everything()
    said = run("rollback_realm", PAGE, "--dry-run")
    assert everything() == before
    assert f"{PAGE} goes from generation 2 back to what it showed at 1" in said
    assert "by ada" in said
    assert "2 files differ" in said
    assert "index.json" in said
    assert "new.md" in said


def test_rollback_realm_rolls_back(republished: Realm) -> None:
    assert "generation 3 shows the earlier content" in run(
        "rollback_realm", PAGE, "--yes", "--no-wait"
    )
    said = run("rollback_realm", PAGE, "--yes", "--no-wait", "--to", "2")
    assert "generation 4 shows the earlier content" in said
    with pytest.raises(CommandError, match="no publication of generation 99"):
        run("rollback_realm", PAGE, "--yes", "--to", "99")
    with pytest.raises(CommandError, match="not found"):
        run("rollback_realm", republished.url, "--yes")


def test_delete_realm_lists_and_deletes_and_a_dry_run_only_lists(source: Realm) -> None:
    make.publish(source, PAGE)
    before = everything()
    said = run("delete_realm", source.url, "--dry-run")
    assert everything() == before
    assert f"{source.url}: 5 files, generation 2" in said
    assert f"published at {PAGE}" in said
    said = run("delete_realm", source.url, "--yes")
    assert f"deleted {source.url}\ndeleted {PAGE}\n" in said
    assert not Realm.objects.filter(owner=source.owner).exists()
    with pytest.raises(CommandError, match="not found"):
        run("delete_realm", source.url, "--yes")
