"""Tests which database sessions keep the plans of prepared statements, and what happens if a plan
is lost."""

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
    """Returns the prepared statements of this session."""
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


def test_no_plan_is_kept_within_a_transaction() -> None:
    with transaction.atomic():
        assert found() == b"a"
    assert kept() == []


def test_no_plan_is_kept_if_the_backend_is_not_the_connected_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a pooler in transaction mode, the connection names a Postgres process other than the
    one that runs the statement. Reads must be correct even if the settings don't mention the
    pooler."""
    connection.ensure_connection()
    monkeypatch.setattr(type(connection.connection.info), "backend_pid", 0)
    assert [found(), found()] == [b"a", b"a"]
    assert kept() == []


def test_behind_a_pooler_no_plan_is_kept() -> None:
    connection.ensure_connection()
    # The settings do this if the operator has configured a pooler.
    connection.connection.prepare_threshold = None
    assert found() == b"a"
    assert kept() == []


def test_a_lost_plan_causes_no_error() -> None:
    assert found() == b"a"
    with connection.cursor() as cursor:
        # Behind a pooler, another client may drop the plans. psycopg doesn't notice this, and it
        # doesn't notice the DEALLOCATE in this block either.
        cursor.execute("DO $$ BEGIN DEALLOCATE ALL; END $$")
    assert [found(), found("b.txt")] == [b"a", b"b"]
    assert kept() == []
    connection.close()
    found()
    assert len(kept()) == 1, "a new session keeps plans again"


def test_a_column_whose_type_changes_causes_no_error() -> None:
    """While this release still serves requests, a migration of the next release may change the type
    of a column."""
    with psycopg.connect(database_url(), autocommit=True) as other:
        other.execute("CREATE TABLE changing AS SELECT 1 AS number")
        try:
            assert first_row("SELECT number FROM changing", {}) == (1,)
            other.execute("ALTER TABLE changing ALTER number TYPE text")
            assert first_row("SELECT number FROM changing", {}) == ("1",)
        finally:
            other.execute("DROP TABLE changing")


def test_an_array_parameter_keeps_its_texts() -> None:
    texts = ["", "a", 'a"b', "a\\b", "{a,b}", "NULL", " a ", "ä\n'%", '\\"']
    row = first_row("SELECT %(texts)s::text[]", {"texts": array(texts)})
    assert row == (texts,)
    assert first_row("SELECT %(texts)s::text[]", {"texts": array([])}) == ([],)


def test_the_generic_plan_reads_one_row_of_a_large_realm(realm: Realm) -> None:
    """A session keeps one generic plan for all realms. The statistics of the table of file versions
    describe many tiny realms, so Postgres expects a tiny realm when it makes the plan."""
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
    """Returns how many rows of a table a node of a plan and the nodes below it have read."""
    own = 0.0
    if node.get("Relation Name") == table:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return own + sum(read_from(table, each) for each in node.get("Plans", []))


def test_giving_up_plans_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    found()
    with connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN DEALLOCATE ALL; END $$")
    found()
    found()
    assert [each.name for each in caplog.records] == [planned.__name__]
