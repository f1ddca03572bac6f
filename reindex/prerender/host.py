"""Starts and controls a prerenderer, a Deno process that runs card code in a sandbox.

The process may read no files except its own code, and has no network access. The process receives
tasks on stdin, and exits when stdin is closed. Its main program is `deno/host.ts`.
"""

import hashlib
import json
import os
import resource
import secrets
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deno import find_deno_bin
from django.conf import settings

#: The kernel's memory limit for a prerenderer. V8 doesn't start with a limit below about 1 GiB.
_DATA_BYTES = 2 * 1024**3

#: Before another task, a prerenderer that has already done a task has this many seconds to report
#: that it is ready. Otherwise it is killed.
READY_SECONDS = 1.0

_HOST = Path(settings.TYPESCRIPT_DIR) / "reindex" / "deno"
_NODE_MODULES = Path(settings.TYPESCRIPT_DIR) / "node_modules"


@dataclass(frozen=True)
class Library:
    """The card library at one generation. `realm` is the URL of the library's realm. Card code
    imports the library as `@realm/base`, and `module` is the URL of that module. `sources` has the
    source of the module and of everything that it imports."""

    realm: str
    module: str
    sources: dict[str, Any]

    @cached_property
    def version(self) -> str:
        """A hash of the library's sources. Two generations with the same sources have the same
        version."""
        return hashlib.sha256(json.dumps(self.sources, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Host:
    """A running prerenderer process, which loads the card library before it takes a task."""

    process: "subprocess.Popen[bytes]"
    nonce: str
    #: The version of the process's card library.
    library: str
    #: Whether the process has done a task before.
    kept: bool = False

    def say(self, *messages: Any) -> None:
        """Writes the messages to the process's stdin, each as one line of JSON. Raises
        BrokenPipeError if the process has ended."""
        stdin = self.process.stdin
        assert stdin is not None
        for message in messages:
            stdin.write(json.dumps(message).encode() + b"\n")
        stdin.flush()

    def is_ready(self) -> bool:
        """Returns whether the process can take a task. If the process has done a task before, first
        waits until it reports that it is ready. Kills it after READY_SECONDS without a report."""
        if self.kept:
            assert self.process.stdout is not None
            timer = threading.Timer(READY_SECONDS, self.process.kill)
            timer.start()
            nonce = self.nonce.encode()
            answer = next((line for line in self.process.stdout if line.startswith(nonce)), b"")
            timer.cancel()
            if answer.removeprefix(nonce).strip() != b'{"type":"ready"}':
                return False
        return self.process.poll() is None

    def end(self) -> None:
        """Kills the process, and closes the pipes to it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()


def start(library: Library) -> Host:
    """Starts a prerenderer with a card library. Returns before the prerenderer has loaded the
    library."""
    process = subprocess.Popen(
        _command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=settings.TYPESCRIPT_DIR,
        env=_environment(),
        start_new_session=True,
        # The card library fits into a pipe of this size. So this function can write the library
        # without waiting for the process to read it.
        pipesize=1024 * 1024,
    )
    # V8's own memory limit leaves out array buffers, so the kernel limits the process too.
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
    host = Host(process, secrets.token_hex(16), library.version)
    request = {
        "nonce": host.nonce,
        "timeLimitMs": int(settings.REALM_RENDER_SECONDS * 1000),
        "library": {
            "origin": settings.REALM_PUBLIC_ORIGIN,
            "realm": library.realm,
            "module": library.module,
            "sources": library.sources,
        },
    }
    # If the process has already ended, the caller gets BrokenPipeError later, when the caller sends
    # a task.
    with suppress(BrokenPipeError):
        host.say(request)
    return host


# --- Command line and environment --------------------------------------------------------------


def _command() -> list[str]:
    memory = settings.REALM_RENDER_MEMORY_MB
    return [
        find_deno_bin(), "run", "--quiet", "--no-prompt", "--no-lock", "--no-config", "--no-check",
        "--no-npm", "--no-remote", "--unstable-worker-options",
        f"--import-map={_HOST / 'import_map.json'}",
        f"--allow-read={_HOST},{_NODE_MODULES}",
        # The sandbox's loader (`loader.ts`) loads only sources that the server has sent. Code that
        # `eval` makes from a string could use Deno's own loader instead. So V8 must not compile
        # strings.
        f"--v8-flags=--max-old-space-size={memory},--disallow-code-generation-from-strings",
        str(_HOST / "host.ts"),
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    folder = Path(settings.DATA_DIR) / "deno"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", ""),
        "DENO_DIR": str(folder),
        "DENO_NO_UPDATE_CHECK": "1",
        "NO_COLOR": "1",
    }
