"""Statements that a session plans once: where plans are kept, and what if they are gone."""

import json
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from realms import sql
from realms.content import planned
from realms.content.planned import array, first_row
from realms.content.resolve import resolve
from realms.models import FileVersion, Realm
from tests.support import make
from tests.support.cluster import database_url
from tests.support.web import ORIGIN

SITE = f"{ORIGIN}/ada/site/"


@pytest.fixture(autouse=True)
def realm(owner: Any) -> Realm:
    connection.close()
    return make.source(SITE, owner, {"a.txt": b"a", "b.txt": b"b"})


def kept() -> list[str]:
    """The statements that this session has plans of."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def found(path: str = "a.txt") -> bytes | None:
    at = resolve(SITE + path)
    assert at is not None and at.file is not None
    return at.file.data


def test_a_session_plans_a_statement_once() -> None:
    assert [found(), found("b.txt"), found()] == [b"a", b"b", b"a"]
    assert len(kept()) == 1


def test_a_transaction_keeps_no_plan() -> None:
    with transaction.atomic():
        assert found() == b"a"
    assert kept() == []


def test_a_session_that_is_not_the_one_connected_to_keeps_no_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a pooler in transaction mode that the settings don't tell of gives no wrong rows."""
    connection.ensure_connection()
    monkeypatch.setattr(type(connection.connection.info), "backend_pid", 0)
    assert [found(), found()] == [b"a", b"a"]
    assert kept() == []


def test_behind_a_pooler_no_plan_is_kept() -> None:
    connection.ensure_connection()
    connection.connection.prepare_threshold = None  # as the settings have it there
    assert found() == b"a"
    assert kept() == []


def test_a_plan_that_is_gone_is_no_error() -> None:
    assert found() == b"a"
    with connection.cursor() as cursor:
        # Without psycopg's knowledge, as another client of a pooler would.
        cursor.execute("DO $$ BEGIN DEALLOCATE ALL; END $$")
    assert [found(), found("b.txt")] == [b"a", b"b"]
    assert kept() == []
    connection.close()
    found()
    assert len(kept()) == 1, "a new session keeps plans again"


def test_a_column_that_gets_another_type_is_no_error() -> None:
    """A migration of the next release, which runs while this one serves."""
    with psycopg.connect(database_url(), autocommit=True) as other:
        other.execute("CREATE TABLE changing AS SELECT 1 AS number")
        try:
            assert first_row("SELECT number FROM changing", {}) == (1,)
            other.execute("ALTER TABLE changing ALTER number TYPE text")
            assert first_row("SELECT number FROM changing", {}) == ("1",)
        finally:
            other.execute("DROP TABLE changing")


def test_an_array_has_the_texts() -> None:
    texts = ["", "a", 'a"b', "a\\b", "{a,b}", "NULL", " a ", "ä\n'%", '\\"']
    row = first_row("SELECT %(texts)s::text[]", {"texts": array(texts)})
    assert row == (texts,)
    assert first_row("SELECT %(texts)s::text[]", {"texts": array([])}) == ([],)


def test_the_plan_for_any_realm_reads_one_file_of_a_large_one(realm: Realm) -> None:
    """A session keeps one plan, made for an average realm; here most realms are tiny."""
    owner = realm.owner
    for number in range(60):
        make.source(f"{ORIGIN}/u{number}/", owner, {"a.txt": b"a"})
    blob = FileVersion.objects.open().filter(realm=realm)[0].blob
    FileVersion.objects.bulk_create(
        FileVersion(
            realm=realm, path=f"file-{number}.txt", blob=blob, size=1, from_generation=2,
            created_at=realm.created_at, modified_at=realm.created_at,
        )
        for number in range(3000)
    )  # fmt: skip
    names = ("candidates", "url", "extensions", "known", "at")
    statement: str = sql.RESOLVE.replace("%%", "%")
    for place, name in enumerate(names, 1):
        statement = statement.replace(f"%({name})s", f"${place}")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE once(text, text, text, text, bigint) AS {statement}")
        cursor.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE once(%s, %s, %s, NULL, NULL)",
            [array([SITE]), f"{SITE}file-7.txt", array(["", ".ts"])],
        )
        (plan,) = cursor.fetchone()
    connection.close()
    plan = json.loads(plan) if isinstance(plan, str) else plan
    assert read_from("realms_fileversion", plan[0]["Plan"]) == 1


def read_from(table: str, node: dict[str, Any]) -> float:
    """How many rows of a table a plan's nodes have read."""
    own = 0.0
    if node.get("Relation Name") == table:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return own + sum(read_from(table, each) for each in node.get("Plans", []))


def test_plans_are_logged_as_given_up_once(caplog: pytest.LogCaptureFixture) -> None:
    found()
    with connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN DEALLOCATE ALL; END $$")
    found()
    found()
    assert [each.name for each in caplog.records] == [planned.__name__]
