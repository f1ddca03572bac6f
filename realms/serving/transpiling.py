"""Transpiles the modules of cards to JavaScript with Deno. All replicas share the results in a
table.

If several processes need the same result, one of them transpiles the source, and the others wait. A
process that has waited for ELECTION_SECONDS transpiles the source itself
(`notifications/election.py`). The key of a result is made from the source's hash, the file's
extension and the version of the transpiler, so a stored result never becomes stale.
"""

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from deno import find_deno_bin
from django.conf import settings

from notifications.election import run_elected
from realms import sql
from realms.content.locks import lock_key
from realms.content.planned import first_row
from realms.models import TranspiledModule

TRANSPILE_SECONDS = 20
#: Deno's arguments. The source map maps lines of the JavaScript to lines of the source.
_ARGUMENTS = ("transpile", "--quiet", "--no-lock", "--source-map", "inline")
_MAP = re.compile(r"\n//# sourceMappingURL=data:application/json;base64,([\w+/=]+)\s*\Z")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class TranspileError(Exception):
    """The source can't be transpiled. The message says why."""


class TranspilerFailed(Exception):
    """The transpiler failed for a reason outside the source. A retry may succeed."""


@cache
def transpiler() -> str:
    """Returns a hash of everything that affects results except the source: Deno's version,
    arguments and compiler options."""
    version = subprocess.run([find_deno_bin(), "--version"], capture_output=True, check=True).stdout
    configuration = json.dumps([_ARGUMENTS, _options()]).encode()
    return hashlib.sha256(version + configuration).hexdigest()


def javascript(sha256: str, source: bytes, path: str) -> str:
    """Returns the JavaScript for the source of a module. The suffix of `path` determines the
    source's language; JavaScript is returned as it is. `sha256` is the hash of the source. Error
    messages quote `path`.

    Raises TranspileError for an invalid source, and TranspilerFailed if Deno fails for another
    reason.
    """
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        raise TranspileError(f"{path} is not valid UTF-8") from error
    suffix = Path(path).suffix
    if suffix in (".js", ".mjs"):
        return text
    if suffix == ".cts":
        raise TranspileError(f"{path} is a CommonJS module, which can't be imported; call it .mts")
    if "\0" in text:
        raise TranspileError(f"{path} has a NUL character")
    key = hashlib.sha256(f"{sha256}{suffix}".encode()).hexdigest()
    row = _stored(key) or _transpile_once(key, source, path)
    if row.body is None:
        raise TranspileError((row.error or "").replace("{path}", path))
    return row.body


def _stored(key: str) -> TranspiledModule | None:
    row = first_row(sql.TRANSPILED, {"sha256": key, "transpiler": transpiler()})
    return None if row is None else TranspiledModule(body=row[0], error=row[1])


def _transpile_once(key: str, source: bytes, path: str) -> TranspiledModule:
    """Waits until this process is elected to transpile the source, but at most ELECTION_SECONDS.
    If another process has stored the result meanwhile, returns its row. Otherwise transpiles the
    source and returns a new row."""

    def make(elected: bool) -> TranspiledModule:
        row = _stored(key)
        if row is None:
            row = TranspiledModule(sha256=key, transpiler=transpiler())
            try:
                row.body = _run_deno(source, path)
            except TranspileError as error:
                row.error = str(error)
            if elected:
                # If this process was suspended for a while, another process may have been elected
                # and may have stored the same result. So ignore a conflict.
                TranspiledModule.objects.bulk_create([row], ignore_conflicts=True)
        return row

    return run_elected(lock_key(f"transpile|{key}"), make)


def _run_deno(source: bytes, path: str) -> str:
    with tempfile.TemporaryDirectory(prefix="transpile-") as folder:
        file = Path(folder) / f"module{Path(path).suffix}"
        file.write_bytes(source)
        # Deno applies the compiler options in a deno.json only to files in the deno.json's folder.
        (Path(folder) / "deno.json").write_text(_options())
        try:
            done = subprocess.run(
                [find_deno_bin(), *_ARGUMENTS, str(file)],
                capture_output=True,
                timeout=TRANSPILE_SECONDS,
                check=False,
                cwd=folder,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "DENO_DIR": folder,
                    "NO_COLOR": "1",
                    "DENO_NO_UPDATE_CHECK": "1",
                },
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TranspilerFailed(f"{path} could not be transpiled: {error}") from error
        if done.returncode == 0:
            return _with_plain_map(done.stdout.decode(), file.name)
        if -done.returncode in (signal.SIGABRT, signal.SIGSEGV):
            # A source that nests too deeply overflows the transpiler's stack. A retry would fail
            # in the same way, so the error isn't TranspilerFailed.
            raise TranspileError(
                "{path} nests too deeply, or crashes the transpiler for another reason"
            )
        message = _ANSI.sub("", done.stderr.decode(errors="replace"))
        message = message.split("\n\nStack backtrace")[0].removeprefix("error: ").strip()
        if "SyntaxError" not in message and file.as_uri() not in message:
            raise TranspilerFailed(f"{path} could not be transpiled: {message}")
        # Files at several paths may have the same source and share the stored message, so the
        # message has a placeholder instead of a path.
        raise TranspileError(message.replace(file.as_uri(), "{path}"))


def _with_plain_map(code: str, name: str) -> str:
    """Returns `code` with a smaller source map, which has only the line mappings and the file's
    name. The map doesn't need the source text, because everyone who can read the module can also
    fetch its source."""
    found = _MAP.search(code)
    if found is None:
        return code
    mappings = json.loads(base64.b64decode(found[1]))["mappings"]
    plain = {"version": 3, "sources": [name], "names": [], "mappings": mappings}
    encoded = base64.b64encode(json.dumps(plain, separators=(",", ":")).encode()).decode()
    return f"{code[: found.start(1)]}{encoded}\n"


@cache
def _options() -> str:
    """Returns the compiler options of the project's deno.json, as JSON."""
    config = json.loads((Path(settings.TYPESCRIPT_DIR) / "deno.json").read_text())
    return json.dumps({"compilerOptions": config["compilerOptions"]}, sort_keys=True)
