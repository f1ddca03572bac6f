"""What an incremental reindex renders and what it leaves: only what nothing has changed for."""

import json
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, connections, transaction
from pytest_django import Settings

from notifications.locks import address_lock
from realms.access.auth import Caller
from realms.access.permissions import change_permissions
from realms.api.reindex_views import reindex
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import rollback_realm, unpublish_realm
from reindex import sql
from reindex.index.shown import find_page
from reindex.jobs import batches, lifecycle, queue
from reindex.models import IndexedCard, IndexHead, ReindexJob
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.rendering import index_of, work_off
from tests.support.web import API, ORIGIN, Web, waiting_for

URL = "http://ada.localhost:4201/"
LIBRARY = "http://localhost:4201/ada/library/"
SITE = "http://localhost:4201/ada/notes/"
SHOWN = "http://library.localhost:4201/"
ELSEWHERE = "http://two.localhost:4201/"
CARD = "application/vnd.card+json"
CUP = {"module": "./cafe\u0301-cup", "name": "Cup"}
Sent = list[tuple[str, Any]]

NOTE = f"""\
import {{ Card, Embed, linksTo, string }} from "@realm/base";
import {{ suffix }} from "./common";
import {{ label }} from "{LIBRARY}label.ts";
export class Note extends Card {{
  static fields = {{ title: string(), next: linksTo(() => Card) }};
  static embedded = ({{ card }}) => <i>{{card.title}}</i>;
  static isolated = ({{ card }}) => (
    <p>{{label}} {{card.title}}{{suffix}} <Embed card={{card.next}} /></p>
  );
}}
"""
PLAIN = """\
import { Card, string } from "@realm/base";
export class Plain extends Card { static fields = { title: string() }; }
"""


def note(title: str, next_: str = "") -> bytes:
    return make.card("./note", "Note", {"next": next_} if next_ else None, title=title)


def plain(title: str) -> bytes:
    return make.card("./plain", "Plain", title=title)


FILES = {
    "realm.json": make.card("@realm/base", "RealmConfig", name="Notes"),
    "common.ts": b'export const suffix = "!";',
    "note.tsx": NOTE.encode(),
    "plain.tsx": PLAIN.encode(),
    "a.json": note("a", "./b"),
    "b.json": note("b", "./c"),
    "c.json": note("c"),
    "lonely.json": note("lonely", "./missing"),
    "p.json": plain("p"),
    "q.json": plain("q"),
}


@pytest.fixture
def library(web: Web, owner: Any) -> Realm:
    sync_base_realm()
    return make.source(
        LIBRARY,
        owner,
        {"label.ts": b'export const label = "one";', "other.ts": b"export const other = 1;"},
    )


@pytest.fixture
def site(library: Realm, owner: Any, sent: Sent) -> Realm:
    """A source realm that is published and indexed."""
    realm = make.source(SITE, owner, FILES)
    make.publish(realm, URL)
    work_off(sent)
    assert len(index_of(URL)) == 6
    return realm


def rows() -> dict[str, int]:
    """The rows that visitors see, by path."""
    return dict(IndexedCard.objects.filter(realm_url=URL, current=True).values_list("path", "pk"))


def newest() -> ReindexJob:
    job = ReindexJob.objects.filter(realm_url=URL).first()
    assert job is not None
    return job


@pytest.fixture
def rendered(sent: Sent) -> Callable[[], set[str]]:
    """Works off what was sent and answers which cards have been rendered, or have gone."""

    def work() -> set[str]:
        before = rows()
        work_off(sent)
        after = rows()
        return {path for path in before.keys() | after if before.get(path) != after.get(path)}

    return work


Rendered = Callable[[], set[str]]


def test_a_changed_card_is_rendered_with_those_that_embed_it_and_no_other(
    site: Realm, rendered: Rendered
) -> None:
    make.write(site, b__json=note("b2", "./c"))
    make.publish(site, URL)
    assert rendered() == {"a", "b"}
    job = newest()
    assert (job.rendered, job.carried, job.errors, job.status) == (2, 4, 0, "done")
    assert IndexHead.objects.get(realm_url=URL).generation == job.generation
    assert "b2" in index_of(URL)["a"].html["isolated"]


def test_stale_cards_are_found_by_index_without_reading_the_others(
    site: Realm,
) -> None:
    named: dict[str, Any] = {"url": site.url, "keys": [1, 2], "own": ["a"]}
    meant = ("card_by_origin", "card_not_settled")
    with transaction.atomic(), connection.cursor() as cursor:
        # The few rows of a test are found as fast by any index, and by none.
        others = [index.name for index in IndexedCard._meta.indexes if index.name not in meant]
        cursor.execute(f"DROP INDEX {', '.join(others)}, one_current_row_per_card")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql.CARDS_TO_RENDER}", named)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        transaction.set_rollback(True)
    assert all(f"Bitmap Index Scan on {name}" in plan or f"using {name}" in plan for name in meant)


def test_a_publish_of_what_is_shown_already_renders_nothing(
    site: Realm, rendered: Rendered
) -> None:
    make.publish(site, URL)
    assert rendered() == set()
    assert (newest().rendered, newest().carried) == (0, 6)
    # Written and written back: a generation passed, the content is the same.
    make.write(site, c__json=note("other"))
    make.write(site, c__json=note("c"))
    make.publish(site, URL)
    assert rendered() == set()


def test_a_changed_module_is_followed_to_every_card_that_is_made_by_it(
    site: Realm, rendered: Rendered
) -> None:
    make.write(site, common__ts=b'export const suffix = "?";')
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    # A file with another extension takes the place of the one that was meant.
    make.write(site, common__tsx=b'export const suffix = "...";')
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    assert "a..." in index_of(URL)["a"].html["isolated"]


def test_files_that_come_and_go_change_the_cards_that_look_for_them(
    site: Realm, rendered: Rendered
) -> None:
    make.write(site, missing__json=plain("found"))
    make.publish(site, URL)
    assert rendered() == {"lonely", "missing"}
    make.remove(site, "c.json")
    make.publish(site, URL)
    assert rendered() == {"b", "c"}
    assert "c" not in index_of(URL)


def test_the_realm_s_own_settings_are_part_of_every_page(site: Realm, rendered: Rendered) -> None:
    make.write(site, realm__json=make.card("@realm/base", "RealmConfig", name="New name"))
    make.publish(site, URL)
    assert rendered() == rows().keys()


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


def test_a_realm_that_can_t_be_read_any_more_is_not_shown_on(
    site: Realm, library: Realm, owner: Any, rendered: Rendered
) -> None:
    from realms.access.auth import Caller
    from realms.publishing.publish import delete_realm

    delete_realm(LIBRARY, Caller("ada"))
    assert rendered() == {"a", "b", "c", "lonely"}
    cards = index_of(URL)
    assert cards["a"].error and not cards["p"].error
    # Another realm stands there now; its history tells nothing about the old one's.
    make.source(LIBRARY, owner, {"label.ts": b'export const label = "three";'})
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    assert "three a" in index_of(URL)["a"].html["isolated"]


def test_what_has_become_private_is_not_shown_on(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    change_permissions(library, {"*": None})
    assert rendered() == {"a", "b", "c", "lonely"}
    assert index_of(URL)["a"].error and newest().pins[LIBRARY] == 0


def test_a_realm_public_again_is_shown_again_and_not_before(
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
    # It is read now, as any other is.
    make.write(library, label__ts=b'export const label = "three";')
    assert rendered() == {"a", "b", "c", "lonely"}


def test_a_realm_opened_while_a_job_finds_it_closed_has_the_job_followed(
    site: Realm, library: Realm, sent: Sent, settings: Settings
) -> None:
    settings.REALM_BATCH_CARDS = 1
    change_permissions(library, {"*": None})
    work_off([sent.pop(0)])  # plans, and renders the first batch
    assert newest().pins[LIBRARY] == 0
    change_permissions(library, {"*": ["read"]})
    work_off(sent)
    cards = index_of(URL)
    assert not [path for path, card in cards.items() if card.error]
    assert "one a" in cards["a"].html["isolated"]


def linked_to(site: Realm, *, close: bool = False, **files: bytes) -> Realm:
    """Another realm, which is published at ELSEWHERE, and which `q` of the site links to."""
    other = make.source("http://localhost:4201/ada/other/", site.owner, FILES)
    make.write(other, **files)
    make.publish(other, ELSEWHERE)
    if close:
        change_permissions(Realm.objects.get(url=ELSEWHERE), {"*": None})
    make.write(site, q__json=note("q", f"{ELSEWHERE}p"))
    make.publish(site, URL)
    return other


def test_a_site_published_where_a_closed_one_was_appears_in_linking_pages(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    other = linked_to(site, close=True)
    rendered()
    unpublish_realm(ELSEWHERE, make_operator())
    make.publish(other, ELSEWHERE)
    assert newest().status == "queued"


def test_a_site_that_was_taken_down_and_is_published_again_is_shown_again(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    other = linked_to(site)
    rendered()
    there = index_of(URL)["q"].search["next"]
    assert there["title"] == "p"
    unpublish_realm(ELSEWHERE, make_operator())
    rendered()
    assert "title" not in index_of(URL)["q"].search["next"]
    # Changed meanwhile, and rendered once more.
    make.write(site, p__json=note("p"))
    make.publish(site, URL)
    rendered()
    make.publish(other, ELSEWHERE)
    rendered()
    assert index_of(URL)["q"].search["next"] == there


def test_a_site_that_comes_where_one_was_looked_for_is_shown(
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
    # A private realm comes, and is opened.
    nowhere = make.source(
        f"{ORIGIN}/ada/nowhere/", site.owner, {"w.json": plain("w")}, public=False
    )
    before = newest()
    assert before.status == "done"
    change_permissions(nowhere, {"*": ["read"]})
    assert newest().status == "queued"
    # What nobody looks for any more is noted no longer.
    make.remove(site, "label.json", "q.json")
    make.publish(site, URL)
    rendered()
    assert 0 not in newest().pins.values()


def test_a_site_whose_front_page_is_broken_is_linked_to_as_any_other(
    site: Realm, library: Realm, rendered: Rendered
) -> None:
    linked_to(site, index__json=make.card("./note", "Nothing"))
    rendered()
    make.publish(site, URL)
    rendered()
    assert index_of(ELSEWHERE)["index"].error
    assert index_of(URL)["q"].search["next"]["title"] == "p"


def test_a_job_is_followed_by_another_if_a_realm_that_it_reads_changes(
    site: Realm, library: Realm, sent: Sent, settings: Settings
) -> None:
    settings.REALM_BATCH_CARDS = 1
    make.write(site, common__ts=b'export const suffix = "?";')
    make.publish(site, URL)
    plan_message = sent.pop(0)
    work_off([plan_message])  # plans, and renders the first batch
    make.write(library, label__ts=b'export const label = "two";')
    work_off(sent)
    jobs_of_two = ReindexJob.objects.filter(realm_url=URL, generation=2)
    assert [job.status for job in jobs_of_two] == ["done", "done"]
    cards = index_of(URL)
    assert {cards[path].html["isolated"][:6] for path in "abc"} == {"<p>two"}


def test_links_lead_to_where_a_realm_is_published_and_move_with_it(
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
    # Of two, it is the one that was there first.
    assert {"a", "b"} <= rendered() <= {"a", "b", "c", "lonely"}
    assert link() == f"{SHOWN}guide"
    make.publish(library, SHOWN)
    assert rendered() == set()
    make.publish(site, URL)
    assert rendered() == set()
    unpublish_realm(SHOWN, Caller("ada"))
    assert "b" in rendered()
    assert link() == "http://other.localhost:4201/guide"
    # Another realm is shown there: nothing is left to lead to.
    other = make.source(f"{ORIGIN}/ada/other/", library.owner, {})
    make.publish(other, "http://other.localhost:4201/")
    assert "b" in rendered()
    assert link() == f"{LIBRARY}guide"
    rollback_realm("http://other.localhost:4201/", Caller("ada"))
    assert "b" in rendered()
    assert link() == "http://other.localhost:4201/guide"


def test_a_realm_published_while_a_job_reads_it_has_the_job_followed(
    site: Realm, library: Realm, sent: Sent, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish that has begun when a worker asks where the realm is, and has told its dependents
    before it became one."""
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
    """Calls in a thread, whose connections end with it."""
    try:
        return work(*arguments)
    finally:
        connections.close_all()


@pytest.mark.parametrize(
    "sly",
    [
        'const name = "./com" + "mon.ts";\nawait import(name);',
        'import "./x/%2E%2e/common.ts";',
        'import "./x\\\\..\\\\common.ts";',
        r'import "./com\x6don.ts";',
        f'import "{URL}x/../common.ts";',
        f'import "{URL.upper()}common.ts";',
        'import /* from * elsewhere */ "./common.ts";',
        f'import "data:text/javascript,import%20%22{URL}common.ts%22";',
    ],
)
def test_what_a_module_may_import_unseen_is_rendered_every_time(
    sly: str, site: Realm, rendered: Rendered
) -> None:
    """A browser's URLs and strings have more spellings than are worth knowing."""
    make.write(site, plain__tsx=f"{sly}\n{PLAIN}".encode())
    make.publish(site, URL)
    rendered()
    make.publish(site, URL)
    assert rendered() == {"p", "q"}


def test_a_full_reindex_renders_everything_and_so_does_another_renderer(
    site: Realm, rendered: Rendered
) -> None:
    reindex(URL, full=True)
    assert rendered() == rows().keys()
    reindex(URL)
    assert rendered() == set()
    ReindexJob.objects.update(renderer="an older release")
    reindex(URL)
    assert rendered() == rows().keys()


def test_an_error_keeps_the_last_page_and_a_thousand_alike_are_one_line(
    site: Realm, web: Web, rendered: Rendered
) -> None:
    before = index_of(URL)["a"].html
    make.write(site, note__tsx=NOTE.replace("{label}", "{label.nope.nope}").encode())
    make.publish(site, URL)
    rendered()
    card = index_of(URL)["a"]
    assert card.error["message"].startswith("Cannot read properties of undefined")
    assert card.html == before
    row = IndexedCard.objects.get(realm_url=URL, path="a")
    assert (row.html_generation, row.job.generation) == (1, 2)
    page = web.get(f"{URL}a", "text/html")
    assert (page.status, "one a!" in page.text) == (200, True)
    # It doesn't pass for what it is not, and a pin of the newer generation doesn't get it.
    assert page.headers["x-realm-generation"] == "1"
    assert page.headers["x-realm-render-failed"] == "2"
    assert web.get(f"{URL}a", "text/html", **{"X-Realm-Min-Generation": "2"}).status == 500
    (kind,) = newest().summary["errors"]
    assert (kind["count"], kind["cards"]) == (4, ["a", "b", "c", "lonely"])
    assert newest().errors == 4

    # What failed is tried again with every job, and what is mended is shown.
    make.write(site, note__tsx=NOTE.encode())
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    assert index_of(URL)["a"].error is None
    assert newest().summary.get("errors") is None


def test_a_job_whose_base_was_replaced_does_not_land_and_is_followed(
    site: Realm, sent: Sent
) -> None:
    make.write(site, b__json=note("b2"))
    make.publish(site, URL)
    job = lifecycle.begin(newest().pk)
    assert job is not None
    (batch,) = lifecycle.create_batches(job, lifecycle.Plan(["b.json"], {URL: 2}, base=0))
    taken = batches.claim(batch.pk)
    assert taken is not None
    sent.clear()
    assert batches.finish(taken, [])
    assert find_page(URL, "b").generation == 1
    assert find_page(URL, "b").html is not None
    assert (newest().status, newest().generation) == ("queued", 2)
    work_off(sent)
    assert "b2" in index_of(URL)["a"].html["isolated"]


def test_after_any_edits_the_index_is_what_a_full_reindex_makes(
    site: Realm, library: Realm, sent: Sent
) -> None:
    """Carrying over is right if nobody can tell that it happened."""
    chance = random.Random(7)

    def edit(step: int) -> None:
        name = chance.choice("abcpq")
        kind = chance.randrange(6)
        if kind == 0:
            make.write_paths(
                site,
                {f"{name}.json": note(f"{name}{step}", chance.choice(("./a", "./c", "./x", "")))},
            )
        elif kind == 1:
            make.write_paths(site, {f"{name}.json": plain(f"{name}{step}")})
        elif kind == 2:
            make.write_paths(site, {"common.ts": f'export const suffix = "{step}";'.encode()})
        elif kind == 3:
            make.write_paths(library, {"label.ts": f'export const label = "l{step}";'.encode()})
        elif kind == 4:
            make.write_paths(site, {"x.json": note(f"x{step}", "./b")})
        elif site.versions.filter(path="x.json", until_generation=None).exists():
            make.remove(site, "x.json")

    for step in range(8):
        edit(step)
        if chance.random() < 0.5:
            edit(step)
        if step == 5:
            rollback_realm(URL, make_operator())
        else:
            make.publish(site, URL)
        work_off(sent)
        carried = {path: vars(card) for path, card in index_of(URL).items()}
        reindex(URL, full=True)
        work_off(sent)
        assert carried == {path: vars(card) for path, card in index_of(URL).items()}, step
    assert ReindexJob.objects.filter(realm_url=URL, carried__gt=0).exists()


def make_operator() -> Any:
    from realms.access.auth import OPERATOR, Caller

    return Caller(OPERATOR, operator=True)


def test_references_in_any_composition_mean_one_card_and_one_module(
    web: Web, site: Realm, rendered: Callable[[], set[str]]
) -> None:
    """Cards that link, adopt and import in NFD, in NFC and escaped are of one type and follow the
    card that they lead to."""
    module = (
        'import { Card, Embed, linksTo, string } from "@realm/base"; import { label } from "NAME";'
        "export class Cup extends Card {"
        "  static fields = { title: string(), next: linksTo(() => Card) };"
        "  static isolated = ({ card }) => <p>{label} {card.next?.title}</p>;"
        "}"
    )
    spellings = ["caf\u00e9", "cafe\u0301", "caf%C3%A9", "cafe%CC%81"]
    files = {"caf\u00e9.json": plain("first"), "caf\u00e9-label.ts": b'export const label = "L";'}
    files["caf\u00e9-cup.tsx"] = module.replace("NAME", "./cafe\u0301-label.ts").encode()
    for place, name in enumerate(spellings):
        files[f"cup{place}.json"] = make.card(f"./{name}-cup", "Cup", {"next": f"./{name}"})
    make.write_paths(site, files)
    make.publish(site, URL)
    rendered()
    cups = [index_of(URL)[f"cup{place}"] for place in range(4)]
    assert [cup.error for cup in cups] == [None] * 4
    assert all("L first" in cup.html["isolated"] for cup in cups)
    assert {cup.search["next"]["id"] for cup in cups} == {f"{URL}caf%C3%A9"}
    assert {str(cup.search["_type"]) for cup in cups} == {str(cups[0].search["_type"])}
    for name in spellings:
        on = json.dumps({"filter": {"eq": {"next.id": f"./{name}"}, "on": CUP}}).encode()
        found = web.request("QUERY", f"{URL}_search", accept=CARD, body=on)
        assert json.loads(found.text)["meta"]["page"]["total"] == 4, found.text
        on = json.dumps({"filter": {"eq": {"id": URL + name}}}).encode()
        found = web.request("QUERY", f"{URL}_search", accept=CARD, body=on)
        assert json.loads(found.text)["meta"]["page"]["total"] == 1, found.text
        page = web.get(URL + quote(name, safe="%"), "text/html")
        assert (page.status, "first" in page.text) == (200, True)
        asked = f"{URL}_definition?module={quote(f'./{name}-cup')}&name=Cup"
        assert web.get(asked, API).status == 200
    make.write_paths(site, {"caf\u00e9.json": plain("second")})
    make.publish(site, URL)
    assert rendered() == {"caf\u00e9", *(f"cup{place}" for place in range(4))}
