"""The prerenderer's process: a Deno that runs card code in a sandbox and reaches nothing.

It reads no file but its own code, has no network, gets what it renders through its stdin, and ends
with that.
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

#: What a prerenderer may allocate in all. V8 does not start with less than about 1 GiB.
_DATA_BYTES = 2 * 1024**3

#: One that was kept and isn't ready after this time is not waited for.
READY_SECONDS = 1.0

_HOST = Path(settings.BASE_DIR) / "reindex" / "deno"
_NODE_MODULES = Path(settings.BASE_DIR) / "node_modules"


@dataclass(frozen=True)
class Library:
    """The card library at one generation: `module` is `@realm/base`, and `sources` has everything
    that it imports."""

    realm: str
    module: str
    sources: dict[str, Any]

    @cached_property
    def version(self) -> str:
        """Tells it from the library of another generation that is not the same."""
        return hashlib.sha256(json.dumps(self.sources, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Host:
    """A running process, which has been given the card library and waits for its task."""

    process: "subprocess.Popen[bytes]"
    nonce: str
    #: The version of its card library.
    library: str
    #: Whether it has done a task before.
    kept: bool = False

    def say(self, *messages: Any) -> None:
        """Writes lines to its stdin. Raises BrokenPipeError if it has ended."""
        stdin = self.process.stdin
        assert stdin is not None
        for message in messages:
            stdin.write(json.dumps(message).encode() + b"\n")
        stdin.flush()

    def is_ready(self) -> bool:
        """Whether it can take a task; one that was kept has to say so first."""
        if self.kept:
            assert self.process.stdout is not None
            timer = threading.Timer(READY_SECONDS, self.process.kill)
            timer.start()
            nonce = self.nonce.encode()
            said = next((line for line in self.process.stdout if line.startswith(nonce)), b"")
            timer.cancel()
            if said.removeprefix(nonce).strip() != b'{"type":"ready"}':
                return False
        return self.process.poll() is None

    def end(self) -> None:
        """Ends it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()


def start(library: Library) -> Host:
    """Starts a process that has loaded the card library when it takes its task."""
    process = subprocess.Popen(
        _command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=settings.BASE_DIR,
        env=_environment(),
        start_new_session=True,
        # Takes the card library before the process has begun to read.
        pipesize=1024 * 1024,
    )
    # The heap limit knows nothing of array buffers.
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
    # One that has ended already is found out by whoever gives it a task.
    with suppress(BrokenPipeError):
        host.say(request)
    return host


# --- How it is started -------------------------------------------------------------------------


def _command() -> list[str]:
    memory = settings.REALM_RENDER_MEMORY_MB
    return [
        find_deno_bin(), "run", "--quiet", "--no-prompt", "--no-lock", "--no-config", "--no-check",
        "--no-npm", "--no-remote", "--unstable-worker-options",
        f"--import-map={_HOST / 'import_map.json'}",
        f"--allow-read={_HOST},{_NODE_MODULES}",
        # Code from strings would be compiled with Deno's own loader behind it.
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
