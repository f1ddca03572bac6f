"""One replica of the realm server as a benchmark measures it: one web worker, one sidecar."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.support.comparing import WrongBytes
from bench.support.peers import free_port, process


@dataclass(frozen=True)
class Replica:
    """A running replica. `pid` is the web service's: its child is the worker."""

    port: int
    pid: int

    def get(self, url: str, body: bytes | None = None) -> str:
        """GETs a public URL and returns `hit` or `miss`. Raises WrongBytes for any other answer
        than a 200 with this body."""
        from tests.support.web import ask

        answer = ask(self.port, "GET", url)
        if answer.status != 200 or body not in (None, answer.body):
            raise WrongBytes(f"{url}: status {answer.status}, {answer.body[:200]!r}")
        return answer.cache


@contextmanager
def replica(folder: Path, *, workers: int = 1, **environment: str) -> Iterator[Replica]:
    """A replica with a live board, on this benchmark's database. `environment` are settings."""
    from notifications.board import Board
    from settings import processes
    from settings.web import web_command
    from tests.support.cluster import database_url, wait_until

    port = free_port()
    web, sidecar = processes.replica("bench", port, folder)
    settings = {"DATABASE_URL": database_url(), **web.environment, **environment}
    with (
        process(web_command("127.0.0.1", port, workers=workers), settings, port=port) as running,
        process(sidecar.command, settings),
    ):
        board = Board(Path(settings["REALM_BOARD"]))
        wait_until(board.live, "the sidecar vouches for the board")
        yield Replica(port, running.pid)
