"""Runs the benchmark that the command line names, or all benchmarks one after the other."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

#: How many smoke tests, which are short runs with --quick, run at a time. It is more than one
#: because a smoke test mostly waits for processes to start. Smoke tests may slow each other down,
#: because nothing judges their times.
AT_ONCE = 3
FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
USAGE = """usage: script/bench [NAME] [--quick] [--runs N] [OPTIONS]

Without a NAME all benchmarks are run, one after the other (with --quick, three at a time).

  --quick      a smoke test: takes seconds, doesn't judge times, writes no result
  --runs N     measures each case (for example each of two compared servers) N times
  --list       lists the benchmarks
  NAME --help  what a benchmark measures, and its options

The measurements of docs/scale.md are separate: script/bench fleet lists them, and
script/bench fleet NAME runs one of them."""


def main(arguments: list[str]) -> int:
    """Runs the benchmark that the arguments name, or all benchmarks. Returns the exit status: 2 for
    wrong arguments, 1 if a benchmark failed or missed a limit, otherwise 0."""
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
    smoke = "--quick" in arguments
    failed = []
    for name, seconds, status in _at_once(arguments) if smoke else _in_turn(arguments):
        sys.stdout.write(f"{name}: {seconds:.0f} s, exit status {status}\n\n")
        sys.stdout.flush()
        if status:
            failed.append(name)
    if failed:
        sys.stderr.write(f"these benchmarks failed or missed a limit: {', '.join(failed)}\n")
    return 1 if failed else 0


def _in_turn(arguments: list[str]) -> Iterator[tuple[str, float, int]]:
    """Runs all benchmarks one after the other. Yields each benchmark's name, duration in seconds
    and exit status."""
    for name in NAMES:
        began = time.monotonic()
        status = _run(name, arguments)
        yield name, time.monotonic() - began, status


def _at_once(arguments: list[str]) -> Iterator[tuple[str, float, int]]:
    """Runs all benchmarks, AT_ONCE at a time. Whenever a benchmark ends, prints its output, and
    yields its name, duration in seconds and exit status."""
    running: list[subprocess.Popen[str]] = []

    def run(name: str) -> tuple[str, float, int, str]:
        began = time.monotonic()
        process = subprocess.Popen(
            _command(name, arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        output, _ = process.communicate()
        return name, time.monotonic() - began, process.returncode, output

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for done in as_completed([pool.submit(run, name) for name in NAMES]):
                name, seconds, status, output = done.result()
                sys.stdout.write(output)
                yield name, seconds, status
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                with suppress(ProcessLookupError):
                    process.terminate()
            raise


def _run(name: str, arguments: list[str]) -> int:
    """Runs a benchmark in a process of its own, and waits until the process ends. Returns the exit
    status. If an exception interrupts the wait, terminates the process and raises the exception
    again."""
    process = subprocess.Popen(_command(name, arguments))
    try:
        return process.wait()
    except BaseException:
        # Ctrl-C sends a signal to both processes, but a supervisor sends a signal only to this one.
        # So this process has to end the benchmark's process.
        process.terminate()
        process.wait()
        raise


def _command(name: str, arguments: list[str]) -> tuple[str, ...]:
    return sys.executable, "-m", f"bench.{name}", *arguments


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
