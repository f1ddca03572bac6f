"""Runs the Postgres server of a fault campaign. A fault can stop the server abruptly.

The campaign's judge needs to know what was committed, and when. So triggers insert each change of
the tables in `_NOTED` into the table `faults_account`. With `track_commit_timestamp`, Postgres
keeps the commit time of each row of `faults_account`. Postgres and the campaign's clients run on
the same machine, so the commit times and the clients' times come from the same clock.
"""

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from django.conf import settings
from psycopg import sql
from psycopg.rows import dict_row

from settings.embedded.server import get_server, pgexec

_ACCOUNT: LiteralString = """
CREATE TABLE faults_account (
    id bigserial PRIMARY KEY, what text NOT NULL, done text NOT NULL, was jsonb, became jsonb
);
CREATE FUNCTION faults_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO faults_account (what, done, was, became) VALUES (
        TG_TABLE_NAME, TG_OP,
        CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE to_jsonb(OLD) END,
        CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE to_jsonb(NEW) END
    );
    RETURN NULL;
END $$;
"""
_NOTED = (
    "realms_realm", "realms_realmpermission", "realms_fileversion", "realms_publication",
    "reindex_indexhead",
)  # fmt: skip


class Postgres:
    """A Postgres server. Its data are in `folder`. They survive an abrupt stop of the server, but
    not a crash of the machine."""

    def __init__(self, folder: Path, port: int) -> None:
        self._pgdata = folder / "postgres"
        self._log = self._pgdata / "log"
        self.port = port
        server = get_server(self._pgdata, start=False)
        server.ensure_pgdata_inited()
        self._bin, self._user = server.bin_path, server.system_user

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
            # fsync isn't needed, because faults kill processes but don't crash the machine.
            " -c fsync=off -c track_commit_timestamp=on -c max_connections=300"
        )
        self._control("-w", "-t", "60", "-l", str(self._log), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stops the server. In the mode `immediate`, the server ends at once, without a shutdown
        checkpoint."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._control("-w", "-m", mode, "stop")

    def _control(self, *arguments: str) -> None:
        pgexec("pg_ctl", ("-D", str(self._pgdata), *arguments), bin_path=self._bin, user=self._user)

    def connect(self, **options: Any) -> "psycopg.Connection[Any]":
        """Opens a new connection. Raises psycopg.OperationalError while the server is down."""
        return psycopg.connect(
            settings.DATABASE_URL, connect_timeout=5, row_factory=dict_row, **options
        )

    def keep_account(self) -> None:
        """Creates the table `faults_account` and the triggers that fill it. Inserts a change for
        each row that the tables in `_NOTED` already have."""
        with self.connect() as connection:
            connection.execute(_ACCOUNT)
            for table in _NOTED:
                name = sql.Identifier(table)
                connection.execute(
                    sql.SQL(
                        "INSERT INTO faults_account (what, done, became)"
                        " SELECT {}, 'INSERT', to_jsonb(t) FROM {} t"
                    ).format(table, name)
                )
                connection.execute(
                    sql.SQL(
                        "CREATE TRIGGER faults_note AFTER INSERT OR UPDATE OR DELETE ON {}"
                        " FOR EACH ROW EXECUTE FUNCTION faults_note()"
                    ).format(name)
                )

    def account(self) -> list[dict[str, Any]]:
        """Returns all rows of `faults_account` in commit order. `at` is the commit time in seconds
        since 1970."""
        with self.connect() as connection:
            return connection.execute(
                """
                SELECT what, done, was, became,
                    extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at
                FROM faults_account ORDER BY pg_xact_commit_timestamp(xmin), id
                """
            ).fetchall()

    def contents(self) -> dict[str, bytes]:
        """Returns the bytes of every blob by SHA-256. A blob is the content of a file. The database
        doesn't contain the bytes of large blobs, so the result has empty bytes for them."""
        with self.connect() as connection:
            rows = connection.execute("SELECT sha256, data FROM realms_blob").fetchall()
        return {row["sha256"]: bytes(row["data"] or b"") for row in rows}

    def end_listeners(self) -> int:
        """Terminates the connections on which sidecars execute LISTEN, and those on which they send
        pings. Returns the number of terminated connections."""
        with self.connect(autocommit=True) as connection:
            return len(
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'listen_file_changes%'"
                ).fetchall()
            )

    def restart(self, away: float) -> None:
        """Stops the server abruptly and starts it again after `away` seconds."""
        self.stop()
        time.sleep(away)
        self.start()
