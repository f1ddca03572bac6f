"""Tests searches in public and private realms, in realms without an index, and by the database's
GIN indexes. Most tests insert index rows. One test renders cards instead."""

import json
import re
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from psycopg import sql

from definitions.models import CacheGeneration, Definition
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex import tasks
from reindex.index import search_sql
from reindex.index.fields import CardType
from reindex.index.query import parse_json
from reindex.models import IndexHead, ReindexJob, WantedDefinitions
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.data.indexed import put_index, search_document
from tests.support.data.searched import (
    CARD,
    CARDS,
    POST,
    POST_FIELDS,
    SITE,
    files,
    found,
    query,
    told,
)
from tests.support.rendering import WORK, index_of, work_off
from tests.support.web import ORIGIN, Web


@pytest.fixture
def site(owner: Any, sent: Any) -> Realm:
    """Returns a published realm with an index of five cards and one error."""
    realm = make.source(f"{ORIGIN}/ada/site/", owner, files())
    published = make.publish(realm, SITE)
    put_index(SITE, published.generation, CARDS, {"broken": {"status": 500, "message": "no"}})
    return Realm.objects.get(url=SITE)


# --- Access ------------------------------------------------------------------------------------


def test_only_readers_can_search_a_private_realm(web: Web, owner: Any) -> None:
    private = make.source(f"{ORIGIN}/ada/diary/", owner, files(), public=False)
    make.user("bob")
    put_index(private.url, private.generation, CARDS)
    url = f"{private.url}_search"
    mine = query(web, {}, url, **make.realm_login(private, "ada"))
    assert mine.status == 200 and json.loads(mine.body)["meta"]["page"]["total"] == 5
    assert mine.headers["cache-control"] == "no-store"
    assert query(web, {}, url).status == 401
    assert query(web, {}, url, **make.realm_login(private, "bob")).status == 403
    assert query(web, {}, url, **make.login("ada")).status == 401
    assert web.get(url, CARD).status == 401
    assert web.request("HEAD", url, accept=CARD).status == 401
    # A caller who may not search isn't told whether the query is valid.
    assert query(web, b"{", url).status == 401


def test_a_search_never_leaves_its_realm(web: Web, site: Realm, owner: Any) -> None:
    private = make.source(f"{ORIGIN}/ada/diary/", owner, {}, public=False)
    secret = search_document(
        f"{private.url}secret", f"{SITE}post", "Post", POST_FIELDS, title="secret"
    )
    put_index(private.url, private.generation, {"secret": secret})
    for asked in (
        {"eq": {"title": "secret"}},
        {"matches": "secret"},
        {"any": [{"every": []}, {"eq": {"id": f"{private.url}secret"}}]},
    ):
        assert "secret" not in query(web, {"filter": asked}).body.decode()
    module = {"module": f"{private.url}hidden", "name": "Hidden"}
    assert query(web, {"filter": {"type": module}}).status == 400


def test_a_type_of_a_private_realm_is_answered_like_a_missing_one(
    web: Web, site: Realm, owner: Any
) -> None:
    private = make.source(
        f"{ORIGIN}/ada/diary/", owner, {"hidden.tsx": b"export class Hidden {}"}, public=False
    )
    there, not_there = (
        query(web, {"filter": {"type": {"module": private.url + name, "name": "Hidden"}}})
        for name in ("hidden", "missing")
    )
    assert there.status == not_there.status == 400
    assert there.body.replace(b"hidden", b"missing") == not_there.body


def test_a_type_without_cards_is_looked_up_in_its_definition(
    web: Web, site: Realm, sent: list[Any], owner: Any
) -> None:
    lib = make.source(f"{ORIGIN}/ada/lib/", owner, {"rare.tsx": b"export class Rare {}"})
    asked: Any = {
        "filter": {"on": {"module": f"{lib.url}rare", "name": "Rare"}, "eq": {"title": "x"}}
    }
    sent.clear()
    waiting = query(web, asked)
    assert waiting.status == 503 and waiting.headers["retry-after"] == "1"
    assert sent == [(tasks.work.name, 1)]
    assert WantedDefinitions.objects.get().module_url == f"{lib.url}rare.tsx"
    for scope, key in (("global", ""), ("realm", lib.url), ("module", f"{lib.url}rare.tsx")):
        CacheGeneration.objects.get_or_create(scope=scope, key=key)
    field = {"kind": "contains", "type": "string", "computed": False}
    counters = {(each.scope, each.key): each.generation for each in CacheGeneration.objects.all()}
    Definition.objects.create(
        module_url=f"{lib.url}rare.tsx", realm_url=lib.url, built_at=timezone.now(), build_ms=1,
        definitions={"Rare": {"fields": {"title": field}}},
        global_generation=counters["global", ""], realm_generation=counters["realm", lib.url],
        module_generation=counters["module", f"{lib.url}rare.tsx"],
    )  # fmt: skip
    assert found(query(web, asked)) == []
    asked["filter"]["eq"] = {"shoes": 1}
    assert "'shoes' is not a field of Rare" in told(query(web, asked))["message"]
    asked["filter"]["on"]["name"] = "Nope"
    assert told(query(web, asked))["source"]["pointer"] == "/filter/on"


def test_a_source_without_an_index_is_indexed_when_its_writer_searches(
    web: Web, source: Realm, sent: list[Any]
) -> None:
    for _ in range(2):
        answer = web.get(f"{source.url}_search", **make.realm_login(source, "ada"))
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
    (job,) = ReindexJob.objects.filter(realm_url=source.url)
    assert job.generation == source.generation
    assert sent == [WORK]


def test_a_search_of_a_realm_that_was_never_rendered_is_a_503(web: Web, source: Realm) -> None:
    make.publish(source, SITE)
    jobs = ReindexJob.objects.count()
    assert query(web, {}).status == 503
    assert ReindexJob.objects.count() == jobs


def test_a_search_outside_of_any_realm_is_a_404(web: Web, site: Realm) -> None:
    assert query(web, {}, "http://nobody.localhost:4201/_search").status in (404, 405)
    assert web.get("http://nobody.localhost:4201/_search", CARD).status == 404
    assert web.get(f"{SITE}folder/_search", CARD).status == 404


# --- Database indexes, and rendered cards ------------------------------------------------------


def test_values_and_words_are_found_through_the_gin_indexes(web: Web, site: Realm) -> None:
    def explained(asked: Any) -> str:
        types = [CardType((f"{SITE}post/Post",), POST_FIELDS)]
        compiler = search_sql.Compiler(SITE, types, False, lambda *_: None)
        parsed = parse_json(json.dumps({"filter": asked}).encode())
        statement = sql.SQL(
            "EXPLAIN SELECT path FROM reindex_indexedcard c WHERE c.current AND {condition}"
        ).format(condition=compiler.filter(parsed.filter, None, ()))
        with transaction.atomic(), connection.cursor() as cursor:
            # With so few rows, the planner might use one of these two indexes instead of a GIN
            # index. The rollback below restores both.
            cursor.execute("DROP INDEX card_by_type, one_current_row_per_card")
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(statement)
            plan = "\n".join(line for (line,) in cursor.fetchall())
            transaction.set_rollback(True)
        return plan

    assert "card_by_value" in explained({"eq": {"title": "x"}})
    assert "card_by_value" in explained({"on": POST, "in": {"author.name": ["x", "y"]}})
    assert "card_by_words" in explained({"matches": "x"})


DOCS = (BASE_DIR / "docs/reference/search.md").read_text()

LIBRARY = {
    "base.tsx": b"""\
import { Card, computed, contains, containsMany, date, linksTo, markdown, number, string }
  from "@realm/base";
export class Person extends Card { static fields = { name: string(), bio: markdown() }; }
export class Place extends Card { static fields = { city: string() }; }
export class Work extends Card {
  static fields = {
    title: string(), made: date(), stars: number(), tags: containsMany(string()),
    place: contains(() => Place), by: linksTo(() => Person),
    shout: computed((card) => card.title.toUpperCase()),
  };
}
""",
    "song.tsx": b"""\
import { string } from "@realm/base";
import { Work } from "./base.tsx";
export class Song extends Work { static fields = { key: string() }; }
""",
    "ada.json": make.card("./base", "Person", name="Ada", bio="Counts engines"),
    "plain.json": make.card("./base.tsx", "Work", title="Plain", stars=1, made="2026-01-01"),
    "songs/hymn.json": make.card(
        "../song", "Song", title="Hymn", key="C", stars=5, tags=["slow"], made="2026-05-01",
        place={"city": "Oslo"}, links={"by": "../ada"},
    ),
}  # fmt: skip


@pytest.mark.cluster
def test_rendered_cards_are_found_by_type_field_link_and_word(
    web: Web, owner: Any, sent: list[tuple[str, Any]]
) -> None:
    sync_base_realm()
    make.publish(make.source(f"{ORIGIN}/ada/songs/", owner, LIBRARY), SITE)
    work_off(sent)
    assert {path: card.error for path, card in index_of(SITE).items() if card.error} == {}
    work = {"module": "./base", "name": "Work"}
    for asked, expected in [
        ({"type": work}, ["plain", "songs/hymn"]),
        ({"type": {"module": "./song.tsx", "name": "Song"}}, ["songs/hymn"]),
        ({"on": work, "range": {"stars": {"gt": 2}}}, ["songs/hymn"]),
        ({"on": work, "range": {"made": {"lt": "2026-05-01"}}}, ["plain"]),
        ({"eq": {"by.name": "Ada"}}, ["songs/hymn"]),
        ({"eq": {"by": "./ada"}}, ["songs/hymn"]),
        ({"on": work, "eq": {"by": None}}, ["plain"]),
        ({"eq": {"place.city": "Oslo"}}, ["songs/hymn"]),
        ({"contains": {"tags": "LOW"}}, ["songs/hymn"]),
        ({"eq": {"shout": "PLAIN"}}, ["plain"]),
        ({"eq": {"key": "C"}}, ["songs/hymn"]),
        ({"matches": "engines"}, ["ada"]),
        ({"matches": "hymn oslo"}, ["songs/hymn"]),
    ]:
        assert found(query(web, {"filter": asked})) == expected, asked
    # The example queries in docs/reference/search.md are about these cards.
    first, refused = (query(web, body.encode()) for body in re.findall(r"-d '(.*?)'", DOCS, re.S))
    assert found(first) == ["songs/hymn"]
    assert told(refused)["message"].startswith("/filter/eq/by.bio: 'by.bio' is not a field of")
    (url,) = re.findall(r"curl -g '(.*?)'", DOCS)
    assert found(web.get(url, CARD)) == ["songs/hymn"]
    assert IndexHead.objects.get(realm_url=SITE).generation == 1
