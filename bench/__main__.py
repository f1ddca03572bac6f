"""Runs the benchmarks: the one that is named, or all of them one after the other."""

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
USAGE = """usage: script/bench [NAME] [--quick] [--runs N] [OPTIONS]

Without a NAME all benchmarks are run, one after the other.

  --quick      a smoke test: seconds each, judges no times, writes no result
  --runs N     how often each case is measured
  --list       lists the benchmarks
  NAME --help  what a benchmark measures, and its options

script/bench fleet lists the measurements of docs/scale.md, which are run one at a time."""


def main(arguments: list[str]) -> int:
    """Returns the exit status: 2 for bad usage, 1 if a benchmark failed."""
    if "--list" in arguments:
        sys.stdout.write("".join(f"{name:10} {_first_line(name)}\n" for name in NAMES))
        return 0
    if arguments and arguments[0] in (*NAMES, "fleet"):
        return _run(arguments[0], arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        sys.stderr.write(f"there is no benchmark {arguments[0]!r}, only: {', '.join(NAMES)}\n")
        return 2
    if {"-h", "--help"} & {*arguments}:
        sys.stdout.write(USAGE + "\n")
        return 0
    failed = []
    for name in NAMES:
        began = time.monotonic()
        status = _run(name, arguments)
        sys.stdout.write(f"{name}: {time.monotonic() - began:.0f} s, exit status {status}\n\n")
        sys.stdout.flush()
        if status:
            failed.append(name)
    if failed:
        sys.stderr.write(f"failed or with a bar that is not held: {', '.join(failed)}\n")
    return 1 if failed else 0


def _run(name: str, arguments: list[str]) -> int:
    """Runs a benchmark in a process of its own and waits for it, also when interrupted."""
    process = subprocess.Popen((sys.executable, "-m", f"bench.{name}", *arguments))
    try:
        return process.wait()
    except BaseException:
        # A terminal has interrupted the benchmark as well; a supervisor has not.
        process.terminate()
        process.wait()
        raise


def _first_line(name: str) -> str:
    text = (FOLDER / f"{name}.py").read_text()
    return text.removeprefix('"""').split("\n", 1)[0]


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
