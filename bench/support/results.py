"""Reads and writes the results of benchmarks. Each benchmark has a file in `bench/results/`, to
which each of its runs adds a line of JSON.

A line has the date, the commit, the machine, the versions of the programs and packages, and the
figures that the benchmark measured.
"""

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bench.support.comparing import Bar, Ratio, Table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
_PACKAGES = ("Django", "granian", "psycopg", "whitenoise", "gunicorn", "celery", "deno")
#: For each program, the command that prints its version.
_PROGRAMS = {"nginx": ("nginx", "-v"), "varnish": ("varnishd", "-V"), "wrk": ("wrk", "-v")}


def append(
    name: str,
    tables: Sequence[Table],
    bars: Sequence[Bar],
    skipped: Mapping[str, str],
    postgres: str,
) -> Path:
    """Appends a result to the file of the benchmark `name`. Returns the file's path, relative to
    the repository. For each skipped peer, `skipped` says why, or how to install it. `postgres` is
    the version of the Postgres server."""
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": versions() | {"postgres": postgres},
        "tables": [asdict(table) for table in tables],
        "bars": [asdict(bar) | {"held": bar.held} for bar in bars],
        "skipped": dict(skipped),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return path.relative_to(ROOT)


def newest(name: str) -> dict[str, Any] | None:
    """Returns the newest result of a benchmark, or None if there is none. The result's `tables` and
    `bars` are Table and Bar objects."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    result["tables"] = [Table(**table) for table in result["tables"]]
    result["bars"] = [_bar(bar) for bar in result["bars"]]
    return result


def machine() -> dict[str, Any]:
    """Returns this machine's processor, number of cores, memory in GiB, and kernel."""
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        described = ""
    model = re.search(r"^model name\s*: (.+)$", described, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "ram_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of the installed programs and packages that benchmarks use."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package.lower()] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for name, command in _PROGRAMS.items():
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            number = re.search(r"\d+\.\d+(\.\d+)?", said.stdout + said.stderr)
            found[name] = number[0] if number else "unknown"
    return found


def _commit() -> str:
    """Returns the current commit. A plus sign follows if a file outside docs/ and bench/results/
    differs from the commit."""

    def git(*arguments: str) -> str:
        command = ("git", "-C", str(ROOT), *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!bench/results", ":!docs")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def _bar(stored: dict[str, Any]) -> Bar:
    figure = stored["figure"]
    if isinstance(figure, dict):
        figure = Ratio(**figure)
    return Bar(stored["text"], figure, stored["at_least"], stored["at_most"], stored["always"])
