"""The prerenderer's process: a Deno that is started for some pins on one replica.

It may import from that replica and nothing else, reads no file but its own code, and ends with its
stdin. One is started ahead, while what it is to render is still being found out, or kept from the
task before: then with a new sandbox, so that nothing of an earlier task can reach a later one.
"""

import json
import os
import resource
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deno import find_deno_bin
from django.conf import settings

from reindex.pins import PIN_STEP_SECONDS, Pin, sign
from reindex.reader import BASE_MODULE
from reindex.replicas import avoided

#: What a prerenderer may allocate in all. V8 does not start with less than about 1 GiB.
_DATA_BYTES = 2 * 1024**3

#: One that was kept and isn't ready after this time is not waited for.
READY_SECONDS = 1.0
#: One that is started ahead stands by for as long as its task may take to be found out.
START_SECONDS = 60.0

#: A draft and what is published from it, which an author has rendered in turn.
MAX_STANDING = 2

#: So many files of pinned modules are kept between tasks.
MAX_KEPT_MODULES = 2000

#: Where what card code may not import leads. `deno/errors.ts` knows the second.
NOWHERE = "http://not-pinned.invalid/"
NO_NODE = "http://node.invalid/"

_LIST = """
import { builtinModules } from "node:module";
console.log(JSON.stringify(builtinModules.map((name) => name.replace(/^node:/, ""))));
"""

_HOST = Path(settings.BASE_DIR) / "reindex" / "deno"
_NODE_MODULES = Path(settings.BASE_DIR) / "node_modules"


@dataclass(frozen=True)
class Host:
    """A running process, which has been told where to import from and waits for its task."""

    process: "subprocess.Popen[bytes]"
    nonce: str
    replica: str
    pins: Mapping[str, int]
    held: ExitStack
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
        self.held.close()
        _forget_old_modules()


def start(pins: Mapping[str, int], replica: str) -> Host:
    """Starts a process that imports the pinned realms from a replica."""
    urls = _pinned_urls(pins, replica)
    with ExitStack() as stack:
        import_map = stack.enter_context(
            tempfile.NamedTemporaryFile("w", suffix=".json", prefix="import-map-", dir=_deno_dir())
        )
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
        host = Host(process, secrets.token_hex(16), replica, dict(pins), stack.pop_all())
    request = {
        "nonce": host.nonce,
        "replica": urlsplit(replica).netloc,
        "timeLimitMs": int(settings.REALM_RENDER_SECONDS * 1000),
        "urls": {pinned: public for public, pinned in urls.items()},
    }
    # One that has ended already is found out by whoever gives it a task.
    with suppress(BrokenPipeError):
        host.say(request)
    return host


# --- One that stands by ------------------------------------------------------------------------

#: Those that wait for a task, the oldest first; of this process only, and ended by a timer.
_standing_by: list[tuple[Host, threading.Timer]] = []
_lock = threading.RLock()
#: What has done its task last, and the modules that the next will most likely need.
_resting: list[tuple[Host, list[str]]] = []


def stand_by(pins: Mapping[str, int], replica: str) -> None:
    """Has a process for a task that will most likely come, with these pins."""
    with _lock:
        for host, _ in _standing_by:
            if host.pins == pins and host.process.poll() is None:
                return
    _let_stand(start(pins, replica))


def take(pins: Mapping[str, int], replica: str | None = None) -> Host | None:
    """A process that stands by, if one imports exactly these pins and is ready. Not from a replica
    that is left out at present."""
    left_out = avoided()
    with _lock:
        found = [each for each in _standing_by if each[0].pins == pins]
        for each in found:
            _standing_by.remove(each)
    ready: Host | None = None
    for host, timer in found:
        timer.cancel()
        wanted = replica in (None, host.replica) and host.replica not in left_out
        if ready is None and wanted and host.is_ready():
            ready = host
        else:
            host.end()
    return ready


def rest(host: Host, modules: list[str]) -> None:
    """Takes back a process that has done its task well, until `get_ready` is called. One is kept,
    however many a task has taken."""
    while _resting:
        _resting.pop()[0].end()
    _resting.append((host, modules))


def get_ready() -> None:
    """Has the processes that rest stand by for a next task, each with a new sandbox, which has seen
    no card. Called when nobody waits for a page any more."""
    while _resting:
        host, modules = _resting.pop()
        if settings.REALM_PRERENDERER_SECONDS <= 0:
            host.end()
            continue
        with suppress(BrokenPipeError):
            host.say({"modules": modules})
        _let_stand(replace(host, kept=True))
    if settings.REALM_PRERENDERER_SECONDS <= 0:
        dismiss()


def dismiss() -> None:
    """Ends every process that stands by."""
    _end_all_but(0)


def _let_stand(host: Host) -> None:
    seconds = max(settings.REALM_PRERENDERER_SECONDS, START_SECONDS)
    timer = threading.Timer(seconds, _end_one, [host])
    timer.daemon = True
    with _lock:
        _standing_by.append((host, timer))
    timer.start()
    _end_all_but(MAX_STANDING)


def _end_one(host: Host) -> None:
    with _lock:
        found = [each for each in _standing_by if each[0] is host]
        for each in found:
            _standing_by.remove(each)
    if found:
        host.end()


def _end_all_but(newest: int) -> None:
    with _lock:
        ended = _standing_by[: len(_standing_by) - newest]
        del _standing_by[: len(ended)]
    for host, timer in ended:
        timer.cancel()
        host.end()


# --- How it is started -------------------------------------------------------------------------


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
    # What Node has built in can write where the host answers, and read what it is told.
    imports = packages | {
        **{f"node:{name}": f"{NO_NODE}{name}" for name in _node_modules()},
        f"{replica}/": NOWHERE,
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
def _node_modules() -> list[str]:
    """The modules of Node's own that Deno has built in, by its own account."""
    listed = subprocess.run(
        [find_deno_bin(), "eval", "--no-config", _LIST],
        env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    names: list[str] = json.loads(listed.stdout)
    return names


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
