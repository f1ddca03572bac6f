"""Tests that cards are rendered again after a change of another realm that they read, or of its
permissions.

A job's `pins` map the URL of each realm that the job reads to the generation that it reads. The
generation 0 stands for a missing or private realm.
"""

from collections.abc import Callable
from typing import Any

from pytest_django import Settings

from realms.access.permissions import change_permissions
from realms.models import Realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.data.notes import LIBRARY, newest
from tests.support.rendering import index_of, work_off

URL = "http://ada.localhost:4201/"
Sent = list[tuple[str, Any]]

Rendered = Callable[[], set[str]]


def test_a_change_of_another_realm_renders_only_the_cards_that_read_it(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    make.write(library, label__ts=b'export const label = "two";')
    job = newest()
    assert (job.generation, job.status) == (1, "queued")
    assert rendered() == {"a", "b", "c", "lonely"}
    assert "two a" in index_of(URL)["a"].html["isolated"]
    assert newest().pins[LIBRARY] == library.generation

    make.write(library, other__ts=b"export const other = 2;")
    assert rendered() == set()
    assert newest().pins[LIBRARY] == library.generation


def test_cards_that_read_a_deleted_realm_become_errors(
    site: Realm, library: Realm, owner: Any, rendered: Rendered
) -> None:
    from realms.access.auth import Caller
    from realms.publishing.publish import delete_realm

    delete_realm(LIBRARY, Caller("ada"))
    assert rendered() == {"a", "b", "c", "lonely"}
    cards = index_of(URL)
    assert cards["a"].error and not cards["p"].error
    # A new realm gets the URL of the deleted realm. The job must not take the new realm's files for
    # unchanged files of the deleted realm.
    make.source(LIBRARY, owner, {"label.ts": b'export const label = "three";'})
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    assert "three a" in index_of(URL)["a"].html["isolated"]


def test_cards_that_read_a_realm_become_errors_when_it_turns_private(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    change_permissions(library, {"*": None})
    assert rendered() == {"a", "b", "c", "lonely"}
    assert index_of(URL)["a"].error and newest().pins[LIBRARY] == 0


def test_a_realm_that_is_public_again_is_shown_again(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    change_permissions(library, {"*": None})
    rendered()
    before = newest()
    make.write(library, label__ts=b'export const label = "two";')
    change_permissions(library, {"*": ["write"]})
    assert newest() == before

    change_permissions(library, {"*": ["read"]})
    assert newest().status == "queued"
    assert rendered() == {"a", "b", "c", "lonely"}
    assert "two a" in index_of(URL)["a"].html["isolated"]
    assert newest().pins[LIBRARY] == library.generation
    # The library is readable again, so a change to the library renders the cards again.
    make.write(library, label__ts=b'export const label = "three";')
    assert rendered() == {"a", "b", "c", "lonely"}


def test_a_realm_that_turns_public_during_a_job_causes_a_successor_job(
    site: Realm, library: Realm, sent: Sent, settings: Settings
) -> None:
    settings.REALM_BATCH_CARDS = 1
    change_permissions(library, {"*": None})
    work_off([sent.pop(0)])  # The worker plans the job and renders the first batch.
    assert newest().pins[LIBRARY] == 0
    change_permissions(library, {"*": ["read"]})
    work_off(sent)
    cards = index_of(URL)
    assert not [path for path, card in cards.items() if card.error]
    assert "one a" in cards["a"].html["isolated"]


def test_a_realm_that_changes_while_a_job_reads_it_causes_a_successor_job(
    site: Realm, library: Realm, sent: Sent, settings: Settings
) -> None:
    settings.REALM_BATCH_CARDS = 1
    make.write(site, common__ts=b'export const suffix = "?";')
    make.publish(site, URL)
    plan_message = sent.pop(0)
    work_off([plan_message])  # The worker plans the job and renders the first batch.
    make.write(library, label__ts=b'export const label = "two";')
    work_off(sent)
    jobs_of_two = ReindexJob.objects.filter(realm_url=URL, generation=2)
    assert [job.status for job in jobs_of_two] == ["done", "done"]
    cards = index_of(URL)
    assert {cards[path].html["isolated"][:6] for path in "abc"} == {"<p>two"}
