"""Tests that no stale content is served if a failover loses transactions, or if the sidecar is
connected to another database than the web service.

The sidecar is the process of a replica that receives notifications of changes from Postgres. It
runs a listener, which also makes the board live. The board is a file that tells the web service
which cached content is fresh. While the board isn't live, the web service bypasses its caches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from notifications.board import Board, now_ns
from notifications.emit import local_board
from notifications.listener import Listener
from notifications.reporter import Reporter
from realms.management.commands.listen_file_changes import committed_generations
from realms.models import Realm
from tests.support.clients.counting import count, shown
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, in_thread
from tests.support.listening.hearing import connect
from tests.support.listening.sidecar import listening
from tests.support.web import Web

URL = "http://localhost:4201/ada/site/count.ts"


@contextmanager
def older_copy() -> Iterator[Callable[[], None]]:
    """Copies the test's database. Yields a function that replaces the database with the copy. As in
    a failover to a lagging standby, every connection ends, and the database loses all transactions
    that were committed after the copying."""
    name = str(connection.settings_dict["NAME"])
    copy, lost = f"{name}_standby", f"{name}_lost"
    own = connection.get_connection_params()
    kept = {k: own[k] for k in ("user", "password", "host", "port") if k in own}
    connection.close()
    with psycopg.connect(**kept, dbname="postgres", autocommit=True) as server:

        def run(statement: str, **names: str) -> None:
            composed = sql.SQL(statement).format(
                **{key: sql.Identifier(value) for key, value in names.items()}
            )
            server.execute(composed)

        def ended() -> None:
            server.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = ANY(%s)",
                [[name, copy]],
            )

        for each in (copy, lost):
            run("DROP DATABASE IF EXISTS {each} WITH (FORCE)", each=each)
        ended()
        run("CREATE DATABASE {copy} TEMPLATE {name}", copy=copy, name=name)

        def promote() -> None:
            connection.close()
            run("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name)
            ended()
            run("ALTER DATABASE {name} RENAME TO {lost}", name=name, lost=lost)
            run("ALTER DATABASE {copy} RENAME TO {name}", copy=copy, name=name)

        try:
            yield promote
        finally:
            connection.close()
            for each in (copy, lost):
                run("DROP DATABASE IF EXISTS {each} WITH (FORCE)", each=each)


@pytest.mark.usefixtures("hurry")
def test_after_a_failover_that_lost_commits_no_lost_content_is_served(
    web: Web, source: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    """The replica has cached a file from a commit that the new primary, the copy, doesn't have."""
    first = count(source, 1)
    with older_copy() as promote, listening(local_board(), connect) as listener:
        reporter = Reporter(listener, "http://127.0.0.1:1", committed_generations)
        lost = count(source, 2)
        assert lost == first + 1
        # Wait until the listener has received the notification of the commit. If it arrived later,
        # it could make the next cached answer stale, and the answer wouldn't be a hit.
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        assert shown(web.get(URL)) == 2
        answer = web.get(URL)
        assert (answer.cache, answer.headers["x-realm-generation"]) == ("hit", str(lost))
        reporter.report()

        promote()
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        answer = web.get(URL)
        assert (shown(answer), answer.headers["x-realm-generation"]) == (1, str(first))
        assert web.get(URL).cache == "hit"
        reporter.report()
        assert f"fell from {lost} to {first}: the database has lost transactions" in caplog.text

        pinned = {"X-Realm-Min-Generation": str(lost)}
        refused = web.get(URL, **pinned)
        assert refused.status == 409
        assert f"generation {lost} has not been committed" in refused.text
        assert count(source, 3) == lost
        assert shown(web.get(URL, **pinned)) == 3
        assert shown(web.get(URL)) == 3


@pytest.mark.usefixtures("django_db_setup", "hurry")
def test_a_sidecar_connected_to_another_database_never_goes_live(
    tmp_path: Path,
) -> None:
    """In production, LISTEN_DATABASE_URL can be wrong, or can still lead to the old primary after a
    failover."""
    own = connection.get_connection_params()
    kept = {k: own[k] for k in ("user", "password", "host", "port") if k in own}

    def elsewhere() -> Any:
        return psycopg.connect(**kept, dbname="postgres", autocommit=True)

    board = Board(tmp_path / "board")
    listener = Listener("a", board, elsewhere, 1.0, connect_as_writers=connect)
    ending = in_thread(listener.run)
    try:
        wait_until(lambda: len(listener._pings) >= 3, "three pings are sent", PATIENCE)
        assert not board.live()
        assert listener.watermark == 0
    finally:
        listener.stop()
        ending.result(PATIENCE)
    with listening(board, connect, connect_as_writers=connect):
        assert board.live()
