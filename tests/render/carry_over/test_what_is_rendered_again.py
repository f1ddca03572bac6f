"""Tests that after a change of a file, a job renders only the cards that read the file. The job
carries over the other cards, which means that it keeps their pages of the last index."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, transaction

from realms.api.reindex_views import reindex
from realms.models import Realm
from reindex import sql
from reindex.index.shown import find_page
from reindex.jobs import batches, lifecycle
from reindex.models import IndexedCard, IndexHead, ReindexJob
from tests.support import make
from tests.support.data.notes import NOTE, PLAIN, newest, note, plain, rows
from tests.support.rendering import index_of, work_off
from tests.support.web import API, Web

URL = "http://ada.localhost:4201/"
CARD = "application/vnd.card+json"
CUP = {"module": "./cafe\u0301-cup", "name": "Cup"}
Sent = list[tuple[str, Any]]

Rendered = Callable[[], set[str]]


def test_a_changed_card_is_rendered_with_only_the_cards_that_embed_it(
    site: Realm, rendered: Rendered
) -> None:
    make.write(site, b__json=note("b2", "./c"))
    make.publish(site, URL)
    assert rendered() == {"a", "b"}
    job = newest()
    assert (job.rendered, job.carried, job.errors, job.status) == (2, 4, 0, "done")
    assert IndexHead.objects.get(realm_url=URL).generation == job.generation
    assert "b2" in index_of(URL)["a"].html["isolated"]


def test_cards_to_render_are_found_through_indexes(
    site: Realm,
) -> None:
    named: dict[str, Any] = {"url": site.url, "keys": [1, 2], "own": ["a"]}
    meant = ("card_by_origin", "card_not_settled")
    with transaction.atomic(), connection.cursor() as cursor:
        # In this table of a few rows, Postgres might use no index or another index than in a large
        # table. So drop the other indexes, and discourage a scan without an index.
        others = [index.name for index in IndexedCard._meta.indexes if index.name not in meant]
        cursor.execute(f"DROP INDEX {', '.join(others)}, one_current_row_per_card")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql.CARDS_TO_RENDER}", named)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        transaction.set_rollback(True)
    assert all(f"Bitmap Index Scan on {name}" in plan or f"using {name}" in plan for name in meant)


def test_a_publish_of_the_same_content_renders_nothing(site: Realm, rendered: Rendered) -> None:
    make.publish(site, URL)
    assert rendered() == set()
    assert (newest().rendered, newest().carried) == (0, 6)
    # The content is changed and changed back, so only the generation is new.
    make.write(site, c__json=note("other"))
    make.write(site, c__json=note("c"))
    make.publish(site, URL)
    assert rendered() == set()


def test_a_changed_module_renders_every_card_that_imports_it(
    site: Realm, rendered: Rendered
) -> None:
    make.write(site, common__ts=b'export const suffix = "?";')
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    # Now the import of "./common" finds common.tsx, because `.tsx` is tried before `.ts`.
    make.write(site, common__tsx=b'export const suffix = "...";')
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    assert "a..." in index_of(URL)["a"].html["isolated"]


def test_a_file_that_appears_or_disappears_renders_cards_that_link_to_it(
    site: Realm, rendered: Rendered
) -> None:
    make.write(site, missing__json=plain("found"))
    make.publish(site, URL)
    assert rendered() == {"lonely", "missing"}
    make.remove(site, "c.json")
    make.publish(site, URL)
    assert rendered() == {"b", "c"}
    assert "c" not in index_of(URL)


def test_a_change_of_realm_json_renders_every_page(site: Realm, rendered: Rendered) -> None:
    make.write(site, realm__json=make.card("@realm/base", "RealmConfig", name="New name"))
    make.publish(site, URL)
    assert rendered() == rows().keys()


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
def test_cards_of_a_module_with_unclear_imports_are_rendered_every_time(
    sly: str, site: Realm, rendered: Rendered
) -> None:
    """An import specifier can be written in so many ways that the server doesn't recognize all of
    them. If the server can't tell what a module imports, every job renders the module's cards."""
    make.write(site, plain__tsx=f"{sly}\n{PLAIN}".encode())
    make.publish(site, URL)
    rendered()
    make.publish(site, URL)
    assert rendered() == {"p", "q"}


def test_a_full_reindex_or_a_new_renderer_renders_everything(
    site: Realm, rendered: Rendered
) -> None:
    reindex(URL, full=True)
    assert rendered() == rows().keys()
    reindex(URL)
    assert rendered() == set()
    ReindexJob.objects.update(renderer="an older release")
    reindex(URL)
    assert rendered() == rows().keys()


def test_an_error_keeps_the_last_page_and_equal_errors_are_one_line(
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
    # The old page keeps its generation. A request for the new generation doesn't get the old page.
    assert page.headers["x-realm-generation"] == "1"
    assert page.headers["x-realm-render-failed"] == "2"
    assert web.get(f"{URL}a", "text/html", **{"X-Realm-Min-Generation": "2"}).status == 500
    (kind,) = newest().summary["errors"]
    assert (kind["count"], kind["cards"]) == (4, ["a", "b", "c", "lonely"])
    assert newest().errors == 4

    # Each later job renders the failed cards again. After the module is fixed, this succeeds.
    make.write(site, note__tsx=NOTE.encode())
    make.publish(site, URL)
    assert rendered() == {"a", "b", "c", "lonely"}
    assert index_of(URL)["a"].error is None
    assert newest().summary.get("errors") is None


def test_a_job_whose_base_was_replaced_swaps_nothing_and_has_a_successor(
    site: Realm, sent: Sent
) -> None:
    make.write(site, b__json=note("b2"))
    make.publish(site, URL)
    job = lifecycle.lease_job(newest().pk)
    assert job is not None
    (batch,) = lifecycle.create_batches(job, lifecycle.Plan(["b.json"], {URL: 2}, base=0))
    taken = batches.lease_batch(batch.pk)
    assert taken is not None
    sent.clear()
    assert batches.finish(taken, [])
    assert find_page(URL, "b").generation == 1
    assert find_page(URL, "b").html is not None
    assert (newest().status, newest().generation) == ("queued", 2)
    work_off(sent)
    assert "b2" in index_of(URL)["a"].html["isolated"]


def test_references_in_any_composition_lead_to_one_card_and_module(
    web: Web, site: Realm, rendered: Callable[[], set[str]]
) -> None:
    """A reference to a card or module may be percent-encoded. An accented letter may be written as
    one character (Unicode NFC), or as a letter with a combining accent (NFD). All spellings lead to
    the same card or module. A change of the linked card renders the cards that link to it again."""
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
