"""Runs a task in a prerenderer. A prerenderer is a Deno process that runs card code in a Worker
without permissions.

The process receives one task on stdin and answers in lines that begin with a nonce, a secret random
text. Card code doesn't know the nonce, so it can't forge a result by writing to stdout. If a
process dies or stops answering, only the results that the process hasn't sent are lost.
`deno/protocol.ts` describes the messages.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from notifications.texts import made_storable
from reindex.prerender.host import Host
from reindex.prerender.results import MAX_RESULT, Message
from reindex.reading.strict_json import finite, no_number

#: A process is killed if it sends nothing for a card's time limit plus this many seconds. In the
#: additional time, the process can start a Worker, and can report that a card hangs.
GRACE_SECONDS = 20.0

#: The maximum length of a line from a process. A longer line can't be a valid result and may never
#: end. So only its beginning is kept. Unit: bytes.
MAX_LINE = MAX_RESULT + 1_000

_decode = json.JSONDecoder(parse_float=finite, parse_constant=no_number).decode


class SandboxDied(Exception):
    """The process ended or was killed before it had sent all results."""


def run(
    task: Message,
    host: Host,
    receive: Callable[[Message], None],
    supply: Callable[[Message], Message],
    unavailable: Message | None = None,
) -> Message | None:
    """Runs one task in a process, and calls `receive` with each result, and with each message of
    the type `error` or `stopped`. If the process needs further documents or modules, it sends
    a message of the type `needs` with their URLs. `run` calls `supply` with this message. `supply`
    returns these documents and modules, and `run` sends them to the process.

    Returns None when the task is done. The caller may then keep the process. If a card hangs or
    ends its sandbox, kills the process, and returns the errors of all modules that are known to
    hang, by URL. To render the remaining cards, the caller runs another task in a new process, and
    passes these errors as `unavailable`. Raises SandboxDied if the process dies. Results that
    `receive` got before the exception are valid.
    """
    order: Message = {"unavailable": unavailable or {}}
    if "cards" in task:
        order["cards"] = [card["url"] for card in task["cards"]]
    stopped: Message | None = {}
    try:
        stopped = _Talk(host, receive, supply).about(order, task)
    finally:
        if stopped is not None:
            host.end()
    return stopped


@dataclass(frozen=True)
class _Talk:
    """Exchanges messages with one prerenderer process, line by line."""

    host: Host
    receive: Callable[[Message], None]
    supply: Callable[[Message], Message]

    def about(self, order: Message, task: Message) -> Message | None:
        """Sends a task, and handles the messages of the process until the task ends. Returns the
        same as `run`. Raises SandboxDied."""
        process = self.host.process
        watch = _Watch(process, settings.REALM_RENDER_SECONDS + GRACE_SECONDS)
        try:
            self.host.say(order, task)
            lines = self._lines()
            for line, _ in lines:
                message = _read(line)
                match message["type"]:
                    case "done":
                        return None
                    case "stopped":
                        self.receive(message)
                        return dict(message["unavailable"])
                    case "needs":
                        needs = {key: _texts(message[key]) for key in ("documents", "modules")}
                        self.host.say(self.supply({**needs, "dynamic": bool(message["dynamic"])}))
                    case "card" | "definitions":
                        # The next line has the result of the card or module. Card code can
                        # manipulate the result, but not `message`. So a value in `message` replaces
                        # the value of the same name in the result.
                        result, size = next(lines, (b"", 0))
                        if size == 0:
                            break
                        content = _read(result) if size <= MAX_RESULT else {}
                        self.receive({**content, **message, "size": size})
                    case _:
                        self.receive(message)
                watch.heard()
        except BrokenPipeError as error:
            raise SandboxDied("the prerenderer ended before it took its task") from error
        finally:
            watch.stop()
        if watch.killed:
            raise SandboxDied(f"the prerenderer sent nothing for {watch.patience:g} s")
        # If a process has no memory left, V8 aborts it or the kernel kills it. In both cases the
        # process ends with a signal, and its return code is negative.
        guess = ", most likely for lack of memory" if process.wait() < 0 else ""
        raise SandboxDied(f"the prerenderer ended with status {process.returncode}{guess}")

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        """For each line that begins with the nonce, yields the text after the nonce and the length
        of this text. If a line is longer than MAX_LINE, yields only the beginning of the text, but
        the length of the whole text."""
        stdout = self.host.process.stdout
        assert stdout is not None
        nonce = self.host.nonce.encode()
        while line := stdout.readline(MAX_LINE):
            size, part = len(line), line
            while not part.endswith(b"\n") and (part := stdout.readline(MAX_LINE)):
                size += len(part)
            if line.startswith(nonce):
                yield line[len(nonce) :], size - len(nonce)


def _read(line: bytes) -> Message:
    """Parses one message, and replaces characters that Postgres can't store."""
    try:
        message = _decode(line.decode())
        # Postgres can't store NUL and halves of surrogate pairs. In JSON they are always escaped. A
        # message without such escapes needs no change.
        if b"\\u0000" in line or b"\\ud" in line or b"\\uD" in line:
            message = _storable(message)
    except (ValueError, RecursionError) as error:
        raise SandboxDied(f"the prerenderer's message is not JSON: {error}") from error
    return message if isinstance(message, dict) else {}


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _storable(value: Any) -> Any:
    match value:
        case str():
            return made_storable(value)
        case list():
            return [_storable(each) for each in value]
        case dict():
            return {_storable(key): _storable(each) for key, each in value.items()}
    return value


class _Watch:
    """Kills a process that has sent no message for `patience` seconds. Each task has a watch, and
    each watch has a thread."""

    def __init__(self, process: "subprocess.Popen[bytes]", patience: float) -> None:
        self._process = process
        self.patience = patience
        #: Whether the watch has killed the process.
        self.killed = False
        self._deadline = time.monotonic() + patience
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def heard(self) -> None:
        self._deadline = time.monotonic() + self.patience

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(max(self._deadline - time.monotonic(), 0)):
            if time.monotonic() >= self._deadline:
                self.killed = True
                self._process.kill()
                return
