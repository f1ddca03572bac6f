"""Tests that pages with a link to a site are rendered again when the site appears, disappears or
moves.

A job's `pins` map the URL of each realm that the job reads to the generation that it reads. The
generation 0 stands for a missing or private realm.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from notifications.locks import address_lock
from realms.access.auth import Caller
from realms.access.permissions import change_permissions
from realms.models import Realm
from realms.publishing.publish import rollback_realm, unpublish_realm
from reindex.jobs import queue
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.data.notes import FILES, LIBRARY, make_operator, newest, note, plain
from tests.support.rendering import index_of, work_off
from tests.support.web import ORIGIN, waiting_for

URL = "http://ada.localhost:4201/"
SHOWN = "http://library.localhost:4201/"
ELSEWHERE = "http://two.localhost:4201/"
Sent = list[tuple[str, Any]]

Rendered = Callable[[], set[str]]


def linked_to(site: Realm, *, close: bool = False, **files: bytes) -> Realm:
    """Makes another source realm with `files`, publishes it at ELSEWHERE, and returns it. Makes the
    realm at ELSEWHERE private if `close` is true. Links the site's card `q` to a card at ELSEWHERE,
    and publishes the site."""
    other = make.source("http://localhost:4201/ada/other/", site.owner, FILES)
    make.write(other, **files)
    make.publish(other, ELSEWHERE)
    if close:
        change_permissions(Realm.objects.get(url=ELSEWHERE), {"*": None})
    make.write(site, q__json=note("q", f"{ELSEWHERE}p"))
    make.publish(site, URL)
    return other


def test_a_site_published_where_a_private_one_was_causes_a_job(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    other = linked_to(site, close=True)
    rendered()
    unpublish_realm(ELSEWHERE, make_operator())
    make.publish(other, ELSEWHERE)
    assert newest().status == "queued"


def test_a_site_that_is_published_again_is_shown_again(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    other = linked_to(site)
    rendered()
    there = index_of(URL)["q"].search["next"]
    assert there["title"] == "p"
    unpublish_realm(ELSEWHERE, make_operator())
    rendered()
    assert "title" not in index_of(URL)["q"].search["next"]
    # While no realm is published at ELSEWHERE, the site changes and is rendered again.
    make.write(site, p__json=note("p"))
    make.publish(site, URL)
    rendered()
    make.publish(other, ELSEWHERE)
    rendered()
    assert index_of(URL)["q"].search["next"] == there


def test_a_site_that_appears_where_a_card_looked_for_one_is_shown(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    at = "http://two.localhost:4201/deep/down/"
    make.write(site, q__json=note("q", f"{at}p"), label__json=note("w", "/ada/nowhere/w"))
    make.publish(site, URL)
    rendered()
    pins = newest().pins
    assert {url for url, pin in pins.items() if pin == 0} == {
        ELSEWHERE, f"{ELSEWHERE}deep/", at, f"{ORIGIN}/", f"{ORIGIN}/ada/", f"{ORIGIN}/ada/nowhere/"
    }  # fmt: skip
    other = make.source("http://localhost:4201/ada/other/", site.owner, FILES)
    make.publish(other, at)
    assert newest().status == "queued"
    rendered()
    assert index_of(URL)["q"].search["next"]["title"] == "p"
    assert newest().pins[at] == 1
    # A private realm appears, and then becomes public.
    nowhere = make.source(
        f"{ORIGIN}/ada/nowhere/", site.owner, {"w.json": plain("w")}, public=False
    )
    before = newest()
    assert before.status == "done"
    change_permissions(nowhere, {"*": ["read"]})
    assert newest().status == "queued"
    # After the cards with links to missing realms are deleted, a job has no pins of missing realms.
    make.remove(site, "label.json", "q.json")
    make.publish(site, URL)
    rendered()
    assert 0 not in newest().pins.values()


def test_links_to_a_site_with_a_broken_front_page_still_work(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    linked_to(site, index__json=make.card("./note", "Nothing"))
    rendered()
    make.publish(site, URL)
    rendered()
    assert index_of(ELSEWHERE)["index"].error
    assert index_of(URL)["q"].search["next"]["title"] == "p"


def test_links_lead_to_the_published_realm_and_follow_its_moves(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    def link() -> str:
        return str(index_of(URL)["b"].html["isolated"]).split('href="')[1].split('"')[0]

    make.write(library, guide__json=make.card("@realm/base", "Card"))
    make.write(site, b__json=note("b", f"{LIBRARY}guide"))
    make.publish(site, URL)
    rendered()
    assert link() == f"{LIBRARY}guide"
    for at in (SHOWN, "http://other.localhost:4201/"):
        make.publish(library, at)
    # If a source realm is published at two URLs, links lead to the older published realm.
    assert {"a", "b"} <= rendered() <= {"a", "b", "c", "lonely"}
    assert link() == f"{SHOWN}guide"
    make.publish(library, SHOWN)
    assert rendered() == set()
    make.publish(site, URL)
    assert rendered() == set()
    unpublish_realm(SHOWN, Caller("ada"))
    assert "b" in rendered()
    assert link() == "http://other.localhost:4201/guide"
    # Now no published realm shows the library, so links lead to its source realm.
    other = make.source(f"{ORIGIN}/ada/other/", library.owner, {})
    make.publish(other, "http://other.localhost:4201/")
    assert "b" in rendered()
    assert link() == f"{LIBRARY}guide"
    rollback_realm("http://other.localhost:4201/", Caller("ada"))
    assert "b" in rendered()
    assert link() == "http://other.localhost:4201/guide"


def test_a_realm_published_while_a_job_reads_it_is_linked_at_its_new_url(
    site: Realm, library: Realm, sent: Sent, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publish of the library looks for jobs that depend on the library's published URL. The
    worker's job begins to depend on this URL only after that, but before the publish commits. So
    the worker must wait for the commit before it asks for the URL."""
    make.write(library, guide__json=make.card("@realm/base", "Card"))
    work_off(sent)
    make.write(site, b__json=note("b", f"{LIBRARY}guide"))
    unpublish_realm(URL, Caller("ada"))
    make.publish(site, URL)
    at_the_end, go_on = Event(), Event()
    enqueue = queue.enqueue

    def enqueueing(works: Iterable[queue.Work] = (), **told: Any) -> None:
        owed = list(works)
        enqueue(owed, **told)
        if SHOWN in [work.realm_url for work in owed]:
            at_the_end.set()
            assert go_on.wait(20)

    monkeypatch.setattr(queue, "enqueue", enqueueing)
    with ThreadPoolExecutor(2) as threads:
        publishing = threads.submit(in_thread, make.publish, library, SHOWN)
        assert at_the_end.wait(20)
        rendering = threads.submit(in_thread, work_off, sent)
        wait_until(lambda: waiting_for(address_lock(LIBRARY)) or rendering.done(), "a worker waits")
        go_on.set()
        publishing.result(), rendering.result()
    work_off(sent)
    assert f'href="{SHOWN}guide"' in index_of(URL)["b"].html["isolated"]


def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function, and then closes the database connections of the current thread."""
    try:
        return work(*arguments)
    finally:
        connections.close_all()
