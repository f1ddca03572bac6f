"""Runs the prerenderer: a Deno process, for each task a Worker without permissions for card code.

The process gets one request on stdin and answers in lines that begin with a nonce which card code
never learns, so that what a card writes to stdout can't pass for a result. A process that dies or
goes silent loses what it had not answered yet, and nothing else. The messages: `deno/protocol.ts`.
"""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from reindex.prerender.host import Host
from reindex.prerender.results import MAX_RESULT, Message
from reindex.reading.strict_json import finite, no_number

#: Beyond the limit of one card: for starting, and for ending a Worker that hangs.
GRACE_SECONDS = 20.0

#: No line is read further: what is longer is not a result, and there may be no end of it.
MAX_LINE = MAX_RESULT + 1_000

#: What Postgres can't keep in a JSON document, and a page can't show: NUL, and half a character.
_UNSTORABLE = re.compile("[\\x00\ud800-\udfff]")


class SandboxDied(Exception):
    """The process ended, or was ended, before it had answered everything."""


def run(
    task: Message,
    host: Host,
    receive: Callable[[Message], None],
    supply: Callable[[Message], Message],
    unavailable: Message | None = None,
) -> Message | None:
    """Runs one task in a process and hands every result to `receive`. `supply` is asked for the
    `documents` of cards and for `modules`, by URL, that a render turns out to need (`dynamic` if
    card code waits for the modules and would go on without them), and answers a `Supply`. The
    process ends with the task, unless None is answered: then it may be kept.

    A card that hangs has its error and ends the process: then the modules that are to be left alone
    are answered, to be given as `unavailable` when the rest of the task is run. None means that the
    task is done. Raises SandboxDied; results received before that stand.
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
    """What is said with one process, line by line."""

    host: Host
    receive: Callable[[Message], None]
    supply: Callable[[Message], Message]

    def about(self, order: Message, task: Message) -> Message | None:
        """Gives a task and hears its answers to the end; what `run` returns."""
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
                        asked = {key: _texts(message[key]) for key in ("documents", "modules")}
                        self.host.say(self.supply({**asked, "dynamic": bool(message["dynamic"])}))
                    case "card" | "definitions":
                        # Its result is a line of its own: it was made where card code could reach
                        # it, and has no say in what it is the result of.
                        result, size = next(lines, (b"", 0))
                        if size == 0:
                            break
                        told = _read(result) if size <= MAX_RESULT else {}
                        self.receive({**told, **message, "size": size})
                    case _:
                        self.receive(message)
                watch.heard()
        except BrokenPipeError as error:
            raise SandboxDied("the prerenderer ended before it took its task") from error
        finally:
            watch.stop()
        raise SandboxDied(
            f"the prerenderer ended with status {process.wait()}, most likely for lack of memory"
        )

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        """What the host itself says, and how long each line is: one that is too long is cut."""
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
    """One answer. What card code put into it is made fit to be stored."""
    try:
        message = json.loads(line, parse_float=finite, parse_constant=no_number)
        # JSON spells both as escapes; nearly every answer has neither.
        if b"\\u0000" in line or b"\\ud" in line or b"\\uD" in line:
            message = _storable(message)
    except (ValueError, RecursionError) as error:
        raise SandboxDied(f"its answer can't be read: {error}") from error
    return message if isinstance(message, dict) else {}


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _storable(value: Any) -> Any:
    match value:
        case str():
            return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
        case list():
            return [_storable(each) for each in value]
        case dict():
            return {_storable(key): _storable(each) for key, each in value.items()}
    return value


class _Watch:
    """Kills a process that has said nothing for some seconds; one thread for all that it says."""

    def __init__(self, process: "subprocess.Popen[bytes]", patience: float) -> None:
        self._process = process
        self._patience = patience
        self._deadline = time.monotonic() + patience
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def heard(self) -> None:
        self._deadline = time.monotonic() + self._patience

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(max(self._deadline - time.monotonic(), 0)):
            if time.monotonic() >= self._deadline:
                self._process.kill()
                return
