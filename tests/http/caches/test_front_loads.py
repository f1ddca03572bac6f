"""Tests which answers the front, a WSGI layer before Django, loads itself, and which requests the
front passes to Django."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from threading import Event
from typing import Any

import psycopg
import pytest
from django.db import connection

from realms.access.permissions import change_permissions
from realms.content import planned
from realms.content.resolve import resolve
from realms.errors import Busy
from realms.front import Front
from realms.http.replies import Reply
from realms.models import Realm
from realms.serving import answers, contents
from realms.serving.contents import Variant
from realms.serving.transpiling import TranspilerFailed
from realms.web import asgi
from tests.support import make
from tests.support.cluster import database_url
from tests.support.web import ORIGIN, vouch

SITE = f"{ORIGIN}/ada/site/"
PRIVATE = f"{ORIGIN}/ada/private/"
FILES = {
    "a.txt": b"A text that repeats itself. " * 200,
    "b.ts": b"export const n: number = 1;",
    "_hidden.txt": b"x",
}


@pytest.fixture
def realm(owner: Any) -> Realm:
    connection.ensure_connection()
    answers.caches.cache_clear()
    made = make.source(SITE, owner, FILES)
    vouch()
    return made


def environ(url: str, **headers: str) -> dict[str, Any]:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    path, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": "GET", "PATH_INFO": slash + path, "QUERY_STRING": query,
        "HTTP_HOST": host, "HTTP_ACCEPT": "*/*", "SERVER_NAME": host, "SERVER_PORT": "80",
        "wsgi.url_scheme": scheme, "wsgi.input": BytesIO(), **headers,
    }  # fmt: skip


def nobody(*_: Any) -> Any:
    raise AssertionError("the front passed this request to Django")


def read(url: str, **headers: str) -> Reply | None:
    return Front(nobody).read(environ(url, **headers))


def told(reply: Reply | None) -> tuple[int, str]:
    assert reply is not None
    return reply.status, dict(reply.headers).get("x-boxel-cache", "")


def join_with(monkeypatch: pytest.MonkeyPatch, flights: Any, url: str, joined: Event) -> None:
    """Makes later callers join the running load of this URL. Sets the event `joined` when a caller
    waits for the load."""
    landed = flights._flights[url].landed

    def wait() -> bool:
        joined.set()
        return Event.wait(landed, 10)

    monkeypatch.setattr(flights, "_may_join", lambda *_: True)
    monkeypatch.setattr(landed, "wait", wait)


def no_content(*_: Any, **__: Any) -> Any:
    raise AssertionError("content is made")


def test_a_public_file_and_a_module_are_loaded_without_django(realm: Realm) -> None:
    for path in ("a.txt", "b.ts", "b"):
        assert told(read(SITE + path)) == (200, "miss")
        assert told(read(SITE + path)) == (200, "hit")


def test_urls_that_may_not_be_files_are_left_to_django(realm: Realm) -> None:
    for url in (
        f"{SITE}_info", f"{SITE}_hidden.txt", f"{SITE}robots.txt", f"{SITE}a.txt?noCache",
        f"{ORIGIN}/_at/a.txt", f"{ORIGIN}/nowhere/a.txt",
    ):  # fmt: skip
        assert read(url) is None, url
    assert read(f"{SITE}a.txt", HTTP_ACCEPT="text/html") is None
    assert read(f"{SITE}nothing") is None, "there may be a page"
    assert read(f"{SITE}a.txt", HTTP_X_REALM_MIN_GENERATION="99") is None


def test_the_front_makes_no_answer_from_a_private_file(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.source(PRIVATE, realm.owner, FILES, public=False)
    made: list[object] = []
    for variant in Variant:
        monkeypatch.setitem(contents.MAKERS, variant, lambda *asked: made.append(asked))
    for path in ("a.txt", "b.ts", "nothing"):
        assert read(PRIVATE + path) is None
    assert made == []
    assert not any(map(len, answers.caches().values()))


def test_a_private_answer_that_a_reader_has_loaded_is_left_to_django(realm: Realm) -> None:
    make.source(PRIVATE, realm.owner, FILES, public=False)
    vouch()
    assert answers.load(Variant.MODULE, f"{PRIVATE}a.txt").content.body == FILES["a.txt"]
    assert answers.cached(Variant.MODULE, f"{PRIVATE}a.txt") is not None
    assert read(f"{PRIVATE}a.txt") is None


def test_a_realm_that_became_private_is_left_to_django(realm: Realm) -> None:
    assert told(read(f"{SITE}a.txt")) == (200, "miss")
    change_permissions(realm, {"*": []})
    assert read(f"{SITE}a.txt") is None
    assert read(f"{SITE}b.ts") is None


def test_a_realm_that_becomes_private_during_a_load_is_not_read(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is changed and changed back, so it has the bytes of the cached answer, but a newer
    date. The load's first SQL statement finds a hash that is known, and doesn't fetch the bytes. A
    second statement fetches them for a new answer. The realm becomes private between the two
    statements."""
    read(f"{SITE}a.txt")
    make.write_paths(realm, {"a.txt": b"between"})
    make.write_paths(realm, {"a.txt": FILES["a.txt"]})
    statements = 0

    def once_more(*args: Any, **named: Any) -> Any:
        nonlocal statements
        found = resolve(*args, **named)
        statements += 1
        if statements == 1:
            change_permissions(realm, {"*": []})
        return found

    monkeypatch.setattr(answers, "resolve", once_more)
    assert read(f"{SITE}a.txt") is None
    assert statements == 2


def test_a_reader_whose_shared_load_is_unfinished_loads_again(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared(*_: Any) -> Any:
        raise answers.Unfinished

    monkeypatch.setattr(answers.caches()[Variant.SOURCE], "load", shared)
    assert answers.load(Variant.SOURCE, f"{SITE}a.txt").content.body == FILES["a.txt"]


def test_a_reader_who_joined_a_strangers_failed_load_gets_its_error(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The realm is public, so the reader gets the error of the shared load without a second
    transpile."""
    begun, joined = Event(), Event()
    loads = 0

    def fail(*_: Any) -> Any:
        nonlocal loads
        loads += 1
        begun.set()
        assert joined.wait(10)
        raise TranspilerFailed("the reason")

    monkeypatch.setitem(contents.MAKERS, Variant.MODULE, fail)
    flights = answers.caches()[Variant.MODULE]._flights

    def stranger() -> Reply | None:
        try:
            connection.ensure_connection()
            return read(f"{SITE}b.ts")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        asked = other.submit(stranger)
        assert begun.wait(10)
        join_with(monkeypatch, flights, f"{SITE}b.ts", joined)
        with pytest.raises(TranspilerFailed, match="the reason"):
            answers.load(Variant.MODULE, f"{SITE}b.ts")
        assert told(asked.result(10)) == (503, "")
    assert loads == 1


@pytest.mark.parametrize(
    "error", [Busy(what="secret"), TranspilerFailed("secret"), KeyError("secret")]
)
def test_a_stranger_who_joined_a_readers_failed_load_gets_no_error(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A user who may read the realm has started the load. A stranger who joins the load doesn't get
    its error, which may quote a private file."""
    make.source(PRIVATE, realm.owner, FILES, public=False)
    url = f"{PRIVATE}b.ts"
    begun, joined = Event(), Event()

    def fail(*_: Any) -> Any:
        begun.set()
        assert joined.wait(10)
        raise error

    monkeypatch.setitem(contents.MAKERS, Variant.MODULE, fail)
    flights = answers.caches()[Variant.MODULE]._flights

    def load() -> None:
        try:
            answers.load(Variant.MODULE, url)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as reader:
        asked = reader.submit(load)
        assert begun.wait(10)
        join_with(monkeypatch, flights, url, joined)
        assert read(url) is None
        assert asked.exception(10) is error
    assert not flights._flights


def test_a_cached_answer_that_is_only_compressed_is_not_loaded_again(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(f"{SITE}a.txt")
    monkeypatch.setattr(answers, "resolve", no_content)
    assert told(read(f"{SITE}a.txt", HTTP_ACCEPT_ENCODING="gzip")) == (200, "hit")


@pytest.mark.parametrize("error", [Busy(what="x"), TranspilerFailed("x")])
def test_a_busy_or_failed_transpile_is_a_503_without_django(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setitem(contents.MAKERS, Variant.MODULE, fail)
    reply = read(f"{SITE}b.ts")
    assert told(reply) == (503, "")
    assert reply is not None and dict(reply.headers)["retry-after"] == "1"
    assert "sandbox" in dict(reply.headers)["content-security-policy"]


def test_any_other_failure_is_left_to_django(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contents.MAKERS, Variant.MODULE, no_content)
    assert read(f"{SITE}b.ts") is None


def test_django_replaces_a_lost_connection(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    from settings.wsgi import application

    assert told(read(f"{SITE}a.txt")) == (200, "miss")
    pid = connection.connection.info.backend_pid
    with psycopg.connect(database_url(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert told(asgi._call(application, environ(f"{SITE}b.ts"))) == (200, "miss")
    assert connection.connection.info.backend_pid != pid
    assert told(read(f"{SITE}b")) == (200, "miss")


def test_a_thread_without_a_working_connection_asks_django(realm: Realm) -> None:
    connection.errors_occurred = True
    assert read(f"{SITE}a.txt") is None
    connection.close()
    assert read(f"{SITE}a.txt") is None


def test_a_miss_is_one_statement_that_is_planned_once(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(f"{SITE}b.ts")
    sent: list[str] = []
    execute = psycopg.Cursor.execute

    def noted(self: Any, query: Any, *args: Any, **named: Any) -> Any:
        sent.append(str(query))
        return execute(self, query, *args, **named)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    assert told(read(f"{SITE}a.txt")) == (200, "miss")
    assert len(sent) == 1, sent
    names = connection.connection._prepared._names
    assert len(names) == len({*names.values()}) > 0
    assert planned.first_row("SELECT 1 AS one", {}) == (1,)
