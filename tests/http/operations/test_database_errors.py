"""Tests the answer and the log lines after a database error, and which errors are reported as
bugs."""

import logging
from collections.abc import Iterator
from typing import Any

import amqp.exceptions
import kombu.exceptions
import psycopg
import pytest
from celery import current_app
from django.core.signals import got_request_exception
from django.db import OperationalError, connection, connections, transaction

from notifications.board import Board
from realms.api import routes
from realms.http.database_errors import AnsweredOnce, OneLineASecond
from realms.models import Realm
from reindex.jobs import queue
from reindex.models import ReindexJob
from tests.support import make
from tests.support.web import SOURCE, Web

AWAY = ["08006", "53300", "53200", "57P01", "57P02", "57P03", "25006"]
CONFLICTS = ["23503", "23505", "23P01"]
MISTAKES = ["23502", "23514", "42P01", "42501", "XX000"]


@pytest.fixture
def mistakes() -> Iterator[list[Any]]:
    """Yields a list that collects the exception signals that an error tracker would receive."""
    seen: list[Any] = []

    def note(**told: Any) -> None:
        seen.append(told)

    got_request_exception.connect(note)
    yield seen
    got_request_exception.disconnect(note)


def raising(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Makes each later read request run an SQL statement, which fails."""

    def read(*args: Any, **named: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    monkeypatch.setattr(routes, "_read", read)


def error_of(code: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'one line' USING ERRCODE = '{code}'; END $$"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        *((code, 503) for code in [*AWAY, "40P01", "40001", "57014"]),
        *((code, 409) for code in CONFLICTS),
        *((code, 500) for code in MISTAKES),
        ("22021", 400),
    ],
)
def test_a_database_error_has_the_status_of_its_kind(
    web: Web,
    source: Realm,
    mistakes: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    status: int,
) -> None:
    raising(monkeypatch, error_of(code))
    answer = web.get(f"{source.url}index")
    assert answer.status == status
    assert "one line" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    assert len(mistakes) == (status == 500)
    traces = [record for record in caplog.records if record.exc_info]
    assert len(traces) == (status == 500 or code in ("40P01", "40001", "57014"))


def test_a_connection_lost_in_a_request_is_a_503_and_is_replaced(
    web: Web, source: Realm, mistakes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        raising(patch, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert web.get(f"{source.url}index").status == 503
    assert web.get(f"{source.url}index.json", SOURCE).status == 200
    assert mistakes == []


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "ada/site/index", "text/html"),
        ("GET", "ada/site/index.json", SOURCE),
        ("POST", "ada/site/new.ts", SOURCE),
        ("GET", "_admin/realms/realm/", "text/html"),
        ("GET", "_metrics", "*/*"),
        ("GET", "_readiness", "*/*"),
        ("POST", "_server-session", "application/json"),
        ("GET", "ada/site/_search", "application/vnd.api+json"),
        ("GET", "ada/site/_mtimes", "application/vnd.api+json"),
        ("GET", "ada/site/_readiness-check", "application/vnd.api+json"),
    ],
)
def test_while_the_database_is_away_no_answer_is_a_500(
    web: Web,
    source: Realm,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    accept: str,
) -> None:
    headers = {**make.realm_login(source, "ada"), "Cookie": f"realm_session={'x' * 32}"}
    kind = type(connections["default"])
    monkeypatch.setattr(kind, "get_connection_params", _elsewhere(kind))
    answer = web.request(
        method,
        f"http://localhost:4201/{path}",
        accept=accept,
        body=b'{"username": "ada", "password": "x"}',
        headers=headers,
    )
    assert answer.status == 503, answer.text
    if "_readiness-check" not in path:
        assert answer.headers["retry-after"]
    assert not [record for record in caplog.records if record.exc_info and is_other(record)]


def test_while_the_database_is_away_a_replica_is_alive(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(connections["default"])
    monkeypatch.setattr(kind, "get_connection_params", _elsewhere(kind))
    assert web.get("http://localhost:4201/_liveness").status == 200


def is_other(record: logging.LogRecord) -> bool:
    """Returns whether a log record reports anything other than an unreachable database."""
    return (
        OneLineASecond().filter(record) and "the database is unavailable" not in record.getMessage()
    )


def _elsewhere(kind: Any) -> Any:
    parameters = kind.get_connection_params

    def nowhere(self: Any) -> Any:
        return {**parameters(self), "host": "/nowhere"}

    return nowhere


def records(*errors: BaseException) -> list[logging.LogRecord]:
    """Makes three log records of each error, as a web worker, a Celery worker and a sidecar (the
    process that receives notifications) write them."""
    made = []
    for error in errors:
        info = (type(error), error, None)
        more = {"exc": error, "id": "1"}
        made += [
            logging.LogRecord("web", logging.ERROR, "", 1, "%s failed", ("GET /",), info),
            logging.LogRecord(
                "celery", logging.ERROR, "", 1, "task %(id)s: %(exc)s", (more,), info
            ),
            logging.LogRecord("sidecar", logging.WARNING, "", 1, "lost: %s", (error,), None),
        ]
    return made


def test_an_unreachable_database_is_logged_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 10.0
    monkeypatch.setattr("time.monotonic", lambda: moment)
    away = OperationalError("connection failed\n\tIs the server running?\n- host: refused")
    away.__cause__ = psycopg.OperationalError("connection failed\nmore")
    once = OneLineASecond()
    for _ in range(3):
        printed = [record for record in records(away, away.__cause__) if once.filter(record)]
        assert len(printed) == 1
        line = logging.Formatter("{message}", style="{").format(printed[0])
        assert line.startswith("the database is unavailable: ")
        assert "\n" not in line
        moment += 1
    other = psycopg.errors.UniqueViolation("twice")
    assert [once.filter(record) for record in records(other, KeyError("x"))] == [True] * 6
    assert all(record.getMessage() for record in records(other))


def test_an_error_answer_is_logged_once_at_its_cause() -> None:
    def answered(status: int, info: Any) -> bool:
        record = logging.LogRecord("django.request", logging.ERROR, "", 1, "x", (), info)
        record.status_code = status
        return AnsweredOnce().filter(record)

    error = KeyError("x")
    assert not answered(503, None)
    assert not answered(500, None)
    assert answered(500, (KeyError, error, None))
    assert answered(404, None)


# --- After the commit --------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "error",
    [
        kombu.exceptions.OperationalError("refused"),
        ConnectionResetError("reset"),
        amqp.exceptions.PreconditionFailed("inequivalent arg"),
        kombu.exceptions.EncodeError("no JSON"),
        RuntimeError("the pool is closed"),
        KeyError("channel"),
        AttributeError("'NoneType' object has no attribute 'send'"),
    ],
)
def test_a_broker_error_is_logged_and_the_commit_stands(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(current_app, "send_task", fail)
    after: list[bool] = []
    with transaction.atomic():
        queue.enqueue_job("http://ada.localhost:4201/", 1)
        queue.enqueue([queue.Work("http://bo.localhost:4201/", 1, draft=True, debounced=True)])
        transaction.on_commit(lambda: after.append(True))
    assert ReindexJob.objects.count() == 2
    assert after == [True]
    assert "no message was sent" in caplog.text


def test_a_write_succeeds_even_if_the_board_cannot_be_moved(
    web: Web, source: Realm, sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Board, "bump", fail)
        told = web.upload(f"{source.url}new.ts", b"export {};", make.realm_login(source, "ada"))
    assert told.status == 204
    assert web.get(f"{source.url}new.ts", SOURCE).text == "export {};"
