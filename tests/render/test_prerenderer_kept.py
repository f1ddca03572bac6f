"""Tests that a worker keeps a prerenderer, a Deno process that renders cards, for later tasks. No
state of an earlier task reaches a page."""

from dataclasses import replace
from typing import Any

import pytest
from pytest_django import Settings

from realms.content.blobs import read_blob
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.prerender import host
from reindex.prerender.host import Library
from reindex.prerender.pool import renderers
from tests.support import make
from tests.support.rendering import WORK, index_of, work_off
from tests.support.web import Web

URL = "http://ada.localhost:4201/"
Sent = list[tuple[str, Any]]

#: A module that keeps the title of the first card that it renders, and that imports JSON data.
NOTE = b"""\
import { Card, string } from "@realm/base";
import { mark } from "./mark";
import data from "./data.json" with { type: "json" };
const seen = {};
export class Note extends Card {
  static fields = { title: string() };
  static isolated = ({ card }) => {
    seen.title ??= card.title;
    return <p>{seen.title} {data.said}{mark}</p>;
  };
}
"""


def note(title: str) -> bytes:
    return make.card("./note", "Note", title=title)


@pytest.fixture
def site(web: Web, owner: Any, sent: Sent) -> Realm:
    """Returns a source realm that was published and rendered."""
    sync_base_realm()
    files = {
        "note.tsx": NOTE,
        # The import of `./mark` resolves to mark.tsx while this file exists, and else to mark.ts.
        "mark.tsx": b'export const mark = "?";',
        "mark.ts": b'export const mark = "!";',
        "data.json": b'{"said": "one"}',
        "a.json": note("first"),
    }
    realm = make.source("http://localhost:4201/ada/notes/", owner, files)
    make.publish(realm, URL)
    work_off(sent)
    assert shown() == "<p>first one?</p>"
    return realm


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[host.Host]:
    """Returns a list that collects the prerenderer processes that are started during the test."""
    hosts: list[host.Host] = []
    start = host.start

    def counted(*arguments: Any) -> host.Host:
        hosts.append(start(*arguments))
        return hosts[-1]

    monkeypatch.setattr(host, "start", counted)
    return hosts


def shown() -> str:
    return str(index_of(URL)["a"].html["isolated"])


def published(site: Realm, sent: Sent, **files: bytes) -> str:
    """Writes `files`, if there are any, publishes the site and renders it. Returns the HTML of the
    page `a`."""
    if files:
        make.write(site, **files)
    make.publish(site, URL)
    sent[:] = [WORK]
    work_off(sent)
    return shown()


def test_a_kept_process_renders_a_changed_card_in_a_new_sandbox(
    site: Realm, sent: Sent, started: list[host.Host]
) -> None:
    assert published(site, sent, a__json=note("second")) == "<p>second one?</p>"
    assert published(site, sent, a__json=note("third")) == "<p>third one?</p>"
    assert started == []


def test_a_kept_process_imports_the_current_modules_and_data(
    site: Realm, sent: Sent, started: list[host.Host]
) -> None:
    make.remove(site, "mark.tsx")
    assert published(site, sent) == "<p>first one!</p>"
    assert published(site, sent, data__json=b'{"said": "two"}') == "<p>first two!</p>"
    changed = NOTE.replace(b"<p>", b"<p>now ")
    assert published(site, sent, note__tsx=changed) == "<p>now first two!</p>"
    assert started == []


def test_a_kept_process_that_was_killed_is_replaced(
    site: Realm, sent: Sent, started: list[host.Host]
) -> None:
    for standing in renderers.waiting:
        standing.process.kill()
        standing.process.wait()
    assert published(site, sent, a__json=note("second")) == "<p>second one?</p>"
    assert len(started) == 1


def test_no_process_is_kept_if_the_setting_is_zero(
    site: Realm, sent: Sent, settings: Settings
) -> None:
    settings.REALM_PRERENDERER_SECONDS = 0
    assert published(site, sent, a__json=note("second")) == "<p>second one?</p>"
    assert renderers.waiting == []


def test_a_changed_card_library_gets_a_new_process(
    site: Realm, sent: Sent, started: list[host.Host]
) -> None:
    base = Realm.objects.get(kind=Realm.Kind.BOOTSTRAP)
    version = base.versions.open().get(path="mod.ts")
    changed = read_blob(version.blob_id, version.blob.data) + b"export const more = 1;\n"
    make.write(base, mod__ts=changed)
    assert published(site, sent, a__json=note("second")) == "<p>second one?</p>"
    assert len(started) == 1


def test_only_one_of_several_processes_of_a_task_is_kept(site: Realm, sent: Sent) -> None:
    standing, *_ = renderers.waiting
    taken = [host.start(Library("", "", {})) for _ in range(3)]
    taken = [replace(each, library=standing.library) for each in taken]
    renderers.shutdown()
    for each in taken:
        renderers.release(each)
    assert [each.process.poll() is None for each in taken] == [False, False, True]
    renderers.get_ready()
    assert [each.process for each in renderers.waiting] == [taken[-1].process]
    assert published(site, sent, a__json=note("second")) == "<p>second one?</p>"
