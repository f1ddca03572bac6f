"""kombu's filesystem transport, with messages and tables of queues that appear whole.

Three things of kombu's own would go wrong where several processes start and take at once: it lets a
consumer take a message that is still being written, takes one by moving it to the system's folder
for temporary files (which may be another file system, where a move is a copy), and rewrites the table
of an exchange under the eyes of its readers.
"""

import fcntl
import os
import time
import uuid
from queue import Empty
from typing import Any

from kombu.transport import filesystem
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import dumps, loads

#: How long a consumer waits for a message before it looks whether it is to end. Unit: seconds.
DRAIN_SECONDS = 0.2


class Channel(filesystem.Channel):  # type: ignore[misc]
    """Every file is written under a name that nobody looks for, then renamed."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        name = f"{time.monotonic_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"
        _write(os.path.join(self.data_folder_out, name), payload)

    def _get(self, queue: str) -> Any:
        for name in sorted(os.listdir(self.data_folder_in)):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = os.path.join(self.processed_folder, name)
            try:
                os.rename(os.path.join(self.data_folder_in, name), taken)
            except FileNotFoundError:
                continue  # another consumer has it
            with open(taken, "rb") as file:
                payload = file.read()
            os.remove(taken)
            return loads(bytes_to_str(payload))
        raise Empty

    def get_table(self, exchange: str) -> list[Any]:
        """The queues of an exchange."""
        try:
            table = loads(bytes_to_str(self._exchange_file(exchange).read_bytes()))
        except FileNotFoundError:
            return []
        return [filesystem.exchange_queue_t(*queue) for queue in table]

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        bound = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        with open(self.control_folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            table = self.get_table(exchange)
            if bound not in table:
                _write(str(self._exchange_file(exchange)), [bound, *table])


def _write(path: str, content: Any) -> None:
    draft = f"{path}.{uuid.uuid4()}.draft"
    with open(draft, "wb") as file:
        file.write(str_to_bytes(dumps(content)))
    os.rename(draft, path)


class Transport(filesystem.Transport):  # type: ignore[misc]
    """The transport that `filesystem://` names in this project."""

    Channel = Channel

    def drain_events(self, connection: Any, timeout: float | None = None) -> Any:
        """As kombu's. A worker that is asked to end does not sit out the two seconds it would wait."""
        soon = DRAIN_SECONDS if timeout is None else min(timeout, DRAIN_SECONDS)
        return super().drain_events(connection, timeout=soon)
