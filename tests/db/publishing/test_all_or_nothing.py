"""Tests that each operation on a realm (publish, rollback, unpublish, delete and create) is atomic,
and that replicas and workers are notified only after the commit."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import current_app
from django.db import connection

from notifications.board import Board
from notifications.channels import INVALIDATION_CHANNELS
from notifications.listener import listen_connection
from realms.access.auth import Caller
from realms.models import Publication, Realm
from realms.publishing import publish as publishing
from realms.publishing.publish import delete_realm, publish_realm, rollback_realm, unpublish_realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.data.published import indexed, shown
from tests.support.gates import in_thread
from tests.support.web import ORIGIN, everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
SECOND_PAGE = "http://ada.localhost:4201/second/"
ADA = Caller("ada")


def test_after_the_commit_the_board_moves_and_then_celery_gets_a_message(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, int]] = []

    def committed() -> int:
        def count() -> int:
            return Publication.objects.count()

        return in_thread(count).result(20)

    monkeypatch.setattr(Board, "bump", lambda board, keys: order.append(("board", committed())))
    monkeypatch.setattr(
        "reindex.jobs.messages.send", lambda *_, **__: order.append(("celery", committed()))
    )
    make.publish(source, PAGE)
    assert [what for what, _ in order][-1] == "celery"
    assert [what for what, _ in order].count("celery") == 1
    assert {count for _, count in order} == {1}


def test_a_publish_succeeds_while_the_broker_is_away(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    def away(*_: object, **__: object) -> None:
        raise OSError("no broker")

    monkeypatch.setattr(current_app, "send_task", away)
    done = make.publish(source, PAGE)
    assert ReindexJob.objects.get(realm_url=PAGE, status="queued").generation == done.generation


STEPS = {
    "publish": [
        "realms.publishing.publish.source_to_publish",
        "realms.publishing.publish.published_or_free",
        "realms.publishing.publish._insert_realm",
        "realms.models.RealmPermission.objects.create",
        "realms.models.Publication.objects.create",
        "realms.publishing.effects.notify_replicas",
        "definitions.lookup.DefinitionLookup.drop",
        "reindex.jobs.queue.enqueue",
    ],
    "republish": [
        "realms.publishing.publish.advance",
        "realms.models.Publication.objects.create",
        "realms.publishing.effects.notify_replicas",
        "definitions.lookup.DefinitionLookup.drop",
        "reindex.jobs.queue._end_live",
        "reindex.jobs.queue.enqueue",
    ],
    "rollback": [
        "realms.publishing.publish.rollback_target",
        "realms.publishing.publish.advance",
        "realms.models.Publication.objects.create",
        "definitions.lookup.DefinitionLookup.drop",
        "reindex.jobs.queue.enqueue",
    ],
    "unpublish": [
        "reindex.jobs.queue._forget",
        "definitions.lookup.DefinitionLookup.drop",
        "realms.publishing.effects.emit",
        "realms.publishing.effects.bump_at_commit",
        "realms.models.Realm.delete",
    ],
    "delete": [
        "realms.publishing.publish.deletable",
        "reindex.jobs.queue._forget",
        "definitions.lookup.DefinitionLookup.drop",
        "realms.publishing.effects.emit",
        "realms.models.Realm.delete",
    ],
    "create": [
        "realms.publishing.publish.make_realm",
        "realms.models.RealmPermission.objects.create",
        "realms.publishing.publish.write_files",
        "realms.content.files.store_blobs",
        "realms.content.files._close",
        "realms.publishing.effects.drop_definitions",
    ],
}
ACTS: dict[str, Callable[[], object]] = {
    "publish": lambda: publish_realm(f"{ORIGIN}/ada/site/", SECOND_PAGE, ADA),
    "republish": lambda: publish_realm(f"{ORIGIN}/ada/site/", PAGE, ADA),
    "rollback": lambda: rollback_realm(PAGE, ADA),
    "unpublish": lambda: unpublish_realm(PAGE, ADA),
    "delete": lambda: delete_realm(f"{ORIGIN}/ada/site/", ADA),
    "create": lambda: publishing.create_realm(ADA, "new", {"name": "New"}),
}


class Crash(BaseException):
    """Simulates a crash. `except Exception` doesn't catch this exception."""


@pytest.mark.parametrize("moment", ["before", "after", "cut"])
@pytest.mark.parametrize(
    ("act", "step"), [(act, step) for act, steps in STEPS.items() for step in steps]
)
def test_a_crash_at_any_step_leaves_everything_as_it_was(
    source: Realm,
    sent: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    act: str,
    step: str,
    moment: str,
) -> None:
    """Tests promise P6 of the README for one operation and one of its steps. The operation crashes
    before the step, crashes after the step, or loses the database connection after the step
    (`cut`)."""
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}")
    make.publish(source, PAGE)
    indexed(PAGE)
    sent.clear()
    before = everything()
    moved: list[Any] = []
    monkeypatch.setattr(Board, "bump", lambda board, keys: moved.extend(keys))
    monkeypatch.setattr(step, _crashing(step, moment))

    def go() -> None:
        ACTS[act]()

    with pytest.raises((Crash, Exception)):
        in_thread(go).result(20)
    monkeypatch.undo()
    assert everything() == before
    assert moved == []
    assert sent == []
    assert shown(PAGE)["index.json"] == b"{}"
    ACTS[act]()


def _crashing(step: str, moment: str) -> Callable[..., Any]:
    parts = step.split(".")
    original: Any = __import__(".".join(parts[:2]), fromlist=["x"])
    for part in parts[2:]:
        original = getattr(original, part)

    def crash(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            raise Crash
        value = original(*args, **kwargs)
        if moment == "after":
            raise Crash
        connection.connection.close()
        return value

    return crash


def test_peers_are_notified_only_of_committed_changes(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests promise P1 of the README. A publish and an unpublish send notifications at their
    commit, and a failed publish sends none."""
    with listen_connection() as listener:
        for channel in (*INVALIDATION_CHANNELS, "realm_heartbeat"):
            listener.execute(f"LISTEN {channel}".encode())
        make.publish(source, PAGE)
        told = _heard(listener)
        assert ("realm_file_changes", f"{PAGE}:*") in told
        assert ("realm_registry", f"upsert:{PAGE}") in told
        assert ("realm_registry", f"upsert:{source.url}") in told, "the source is published now"
        assert json.dumps({"k": "realm", "r": PAGE}) in [payload for _, payload in told]

        with monkeypatch.context() as patch:
            patch.setattr(
                "reindex.jobs.queue.enqueue", _crashing("reindex.jobs.queue.enqueue", "after")
            )
            with pytest.raises(Crash):
                make.publish(source, PAGE)
        assert _heard(listener) == []

        unpublish_realm(PAGE, ADA)
        told = _heard(listener)
        assert ("realm_file_changes", f"{PAGE}:*") in told
        assert ("realm_registry", f"delete:{PAGE}") in told
        assert ("realm_registry", f"upsert:{source.url}") in told
        assert ("realm_index_swapped", PAGE) in told


def _heard(listener: "psycopg.Connection[Any]") -> list[tuple[str, str]]:
    """Sends a notification as a mark, and returns all notifications that arrive before the mark.
    Postgres delivers notifications in commit order."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('realm_heartbeat', 'the mark')")
    heard: list[tuple[str, str]] = []
    for each in listener.notifies(timeout=20):
        if each.payload == "the mark":
            return heard
        heard.append((each.channel, each.payload))
    raise AssertionError("the mark did not arrive within 20 s")
