"""Runs the prerenderer: one Deno process for one task, card code in a Worker without permissions.

The process gets one request on stdin and answers in lines that begin with a nonce which card code
never learns, so that what a card writes to stdout can't pass for a result. A process that dies or
goes silent loses what it had not answered yet, and nothing else.
"""

import json
import logging
import os
import re
import resource
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from deno import find_deno_bin
from django.conf import settings

from reindex.pins import PIN_STEP_SECONDS, Pin, sign
from reindex.reader import BASE_MODULE

logger = logging.getLogger(__name__)

Message: TypeAlias = dict[str, Any]

#: Beyond the limit of one card: for starting, and for ending a Worker that hangs.
GRACE_SECONDS = 20.0

#: What a prerenderer may allocate in all. V8 does not start with less than about 1 GiB.
_DATA_BYTES = 2 * 1024**3

#: So many files of pinned modules are kept between tasks.
MAX_KEPT_MODULES = 2000

#: What Postgres can't keep in a JSON document, and a page can't show: NUL, and half a character.
_UNSTORABLE = re.compile("[\\x00\ud800-\udfff]")

_HOST = Path(settings.BASE_DIR) / "reindex" / "deno"
_NODE_MODULES = Path(settings.BASE_DIR) / "node_modules"


class SandboxDied(Exception):
    """The process ended, or was ended, before it had answered everything."""


def run(
    task: Message,
    pins: Mapping[str, int],
    replica: str,
    receive: Callable[[Message], None],
    unavailable: Message | None = None,
) -> Message | None:
    """Runs one task against one replica and hands every result to `receive`.

    A card that hangs has its error and ends the process: then the modules that are to be left alone
    are answered, to be given as `unavailable` when the rest of the task is run. None means that the
    task is done. Raises SandboxDied; results received before that stand.
    """
    nonce = secrets.token_hex(16)
    urls = _pinned_urls(pins, replica)
    request = {
        "nonce": nonce,
        "replica": urlsplit(replica).netloc,
        "timeLimitMs": int(settings.REALM_RENDER_SECONDS * 1000),
        "urls": {pinned: public for public, pinned in urls.items()},
        "unavailable": unavailable or {},
        "task": task,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="import-map-") as import_map:
        json.dump({"imports": _imports(urls, replica)}, import_map)
        import_map.flush()
        process = subprocess.Popen(
            _command(import_map.name, replica),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=settings.BASE_DIR,
            env=_environment(),
            start_new_session=True,
        )
        # The heap limit knows nothing of array buffers.
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
        try:
            return _talk(process, request, nonce, receive)
        finally:
            process.kill()
            process.wait()
            _forget_old_modules()


def _talk(
    process: "subprocess.Popen[bytes]",
    request: Message,
    nonce: str,
    receive: Callable[[Message], None],
) -> Message | None:
    assert process.stdin is not None and process.stdout is not None
    patience = settings.REALM_RENDER_SECONDS + GRACE_SECONDS
    watch: _Watch | None = None
    try:
        with process.stdin, process.stdout:
            watch = _Watch(process, patience)
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                if not line.startswith(nonce.encode()):
                    continue
                message = _read(line[len(nonce) :])
                if message["type"] == "done":
                    return None
                if message["type"] == "stopped":
                    return dict(message["unavailable"])
                receive(message)
                watch.heard()
    except BrokenPipeError as error:
        raise SandboxDied("the prerenderer ended before it took its task") from error
    finally:
        if watch is not None:
            watch.stop()
    raise SandboxDied(
        f"the prerenderer ended with status {process.wait()}, most likely for lack of memory"
    )


def _read(line: bytes) -> Message:
    """One answer. What card code put into it is made fit to be stored."""
    try:
        message: Message = json.loads(line)
        # JSON spells both as escapes; nearly every answer has neither.
        if b"\\u0000" in line or b"\\ud" in line:
            message = _storable(message)
        message["size"] = len(line)
    except (ValueError, RecursionError) as error:
        raise SandboxDied(f"its answer can't be read: {error}") from error
    return message


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


# --- The process -------------------------------------------------------------------------------


def _command(import_map: str, replica: str) -> list[str]:
    memory = settings.REALM_RENDER_MEMORY_MB
    return [
        find_deno_bin(), "run", "--quiet", "--no-prompt", "--no-lock", "--no-config", "--no-check",
        "--unstable-worker-options", "--node-modules-dir=manual",
        f"--import-map={import_map}",
        f"--allow-import={urlsplit(replica).netloc}",
        f"--allow-read={_HOST},{_NODE_MODULES}",
        # Code from strings could import what nobody sees that it imports.
        f"--v8-flags=--max-old-space-size={memory},--disallow-code-generation-from-strings",
        str(_HOST / "host.ts"),
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", ""),
        "DENO_DIR": str(_deno_dir()),
        "DENO_NO_UPDATE_CHECK": "1",
        "NO_COLOR": "1",
    }


def _pinned_urls(pins: Mapping[str, int], replica: str) -> dict[str, str]:
    """Where this replica serves each pinned realm, by the realm's public URL."""
    return {
        realm_url: f"{replica}/_at/{sign(Pin(realm_url, generation))}/"
        for realm_url, generation in pins.items()
    }


def _imports(urls: Mapping[str, str], replica: str) -> dict[str, str]:
    """The import map: public URLs, and root-relative ones as they look from the replica, lead to
    pinned bytes; any other way to the replica leads nowhere."""
    packages: dict[str, str] = dict(_deno_config()["imports"])
    packages.pop("@realm/base", None)
    imports = packages | {
        f"{replica}/": "http://not-pinned.invalid/",
        f"{replica}/_at/": f"{replica}/_at/",
    }
    public = settings.REALM_PUBLIC_ORIGIN
    for realm_url, pinned in urls.items():
        imports[realm_url] = pinned
        if realm_url.startswith(f"{public}/"):
            imports[replica + realm_url.removeprefix(public)] = pinned
        if BASE_MODULE.startswith(realm_url):
            imports["@realm/base"] = pinned + BASE_MODULE.removeprefix(realm_url)
    return imports


@cache
def _deno_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((Path(settings.BASE_DIR) / "deno.json").read_text())
    return config


@cache
def _deno_dir_of(pid: int) -> Path:
    """Deno's caches, of this process only: remote modules are named by tokens there."""
    parent = Path(settings.DATA_DIR) / "deno"
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        if not Path(f"/proc/{other.name}").exists():
            shutil.rmtree(other, ignore_errors=True)
    folder = parent / str(pid)
    folder.mkdir(exist_ok=True)
    return folder


def _deno_dir() -> Path:
    return _deno_dir_of(os.getpid())


def _forget_old_modules() -> None:
    """Drops what Deno has kept of pinned realms when their tokens are about to end. Until then a
    token names bytes that never change, and the next task needn't fetch the card library anew."""
    try:
        kept = time.time() - (_deno_dir() / "remote").stat().st_mtime
        entries = sum(1 for _ in (_deno_dir() / "remote").rglob("*"))
    except FileNotFoundError:
        return
    if kept > PIN_STEP_SECONDS or entries > MAX_KEPT_MODULES:
        forget_modules()


def forget_modules() -> None:
    """Drops what Deno has kept of pinned realms."""
    for name in ("remote", "gen/http"):
        shutil.rmtree(_deno_dir() / name, ignore_errors=True)
