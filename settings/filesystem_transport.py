"""Changes kombu's filesystem transport so that messages and tables are written atomically. A table
is a file that lists the queues of an exchange.

kombu's own transport has three races between processes:

- A consumer can take a half-written message.
- Two consumers can take the same message. A consumer takes a message by moving it to the system's
  temporary folder. If the temporary folder and the queue are on different file systems, the move
  copies the message. So one consumer can read the copy while the other consumer overwrites it.
- While one process creates an exchange's table, another process can read the empty table. If two
  processes create the table at the same time, one overwrites the queue of the other.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    """Writes every file under a temporary name, and renames the complete file. Creates the broker's
    folders."""

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        for folder in (self.data_folder_in, self.control_folder, self.processed_folder):
            Path(folder).mkdir(parents=True, exist_ok=True)

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        name = f"{time.monotonic_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"
        _write(Path(self.data_folder_out) / name, payload)

    def _get(self, queue: str) -> Any:  # type: ignore[override]
        for name in sorted(os.listdir(self.data_folder_in)):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            try:
                taken = (Path(self.data_folder_in) / name).rename(
                    Path(self.processed_folder) / name
                )
            except FileNotFoundError:
                continue  # another consumer has taken the message
            payload = taken.read_bytes()
            taken.unlink()
            return loads(bytes_to_str(payload))
        raise Empty

    def get_table(self, exchange: str) -> list[Any]:
        """Returns the queues that are bound to an exchange."""
        try:
            table = loads(bytes_to_str(self._table(exchange).read_bytes()))
        except FileNotFoundError:
            return []
        return [filesystem.exchange_queue_t(*queue) for queue in table]

    def _queue_bind(
        self, exchange: str, routing_key: str | None, pattern: str | None, queue: str | None
    ) -> None:
        bound = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        with self._tables_locked():
            table = self.get_table(exchange)
            if bound not in table:
                _write(self._table(exchange), [bound, *table])

    def _delete(
        self,
        queue: str,
        exchange: str,
        routing_key: str | None,
        pattern: str | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self._purge(queue)
        bound = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        with self._tables_locked():
            table = self.get_table(exchange)
            if bound in table:
                left = [each for each in table if each != bound]
                _write(self._table(exchange), left)

    def _table(self, exchange: str) -> Path:
        return Path(self.control_folder) / f"{exchange}.exchange"

    @contextmanager
    def _tables_locked(self) -> Iterator[None]:
        with open(Path(self.control_folder) / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write(path: Path, content: Any) -> None:
    draft = path.with_name(f"{path.name}.{uuid.uuid4()}.draft")
    draft.write_bytes(str_to_bytes(dumps(content)))
    draft.rename(path)


class Transport(filesystem.Transport):
    """The transport that Celery uses for the broker URL `filesystem://`."""

    Channel = Channel

    # With `asynchronous`, a Celery worker runs an event loop. Without the event loop, a worker's
    # processes receive their tasks through one pipe, and share a lock on the pipe. A process holds
    # the lock while it waits for a task. If the process is killed during the wait, the lock is
    # never freed, and no other process gets a task.
    implements = filesystem.Transport.implements.extend(asynchronous=True)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Makes the worker's event loop look for messages once in each polling interval."""
        loop.call_repeatedly(self.polling_interval, self._take_all, (connection,))

    def _take_all(self, connection: Any) -> None:
        with suppress(TimeoutError):
            while True:
                self.drain_events(connection, timeout=0)
