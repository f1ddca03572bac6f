"""Measures how long a publish takes, and how much publishes delay the requests of other users.

A publish shows the current files of a source realm at a public URL. The first two measurements
publish realms of 100 to 100,000 files. The benchmark calls the same function as the web service.
This function takes locks, checks rights, sends notifications, and queues the job that renders the
pages. In the first measurement, the files don't change between publishes. In the second
measurement, one file is written before each publish, and the write isn't timed. After each publish,
the benchmark checks that the published files have the right bytes.

For comparison, the first measurement also copies a folder with `cp -a` and renames the copy, as a
host of static sites may do. The folder contains the same files as the realm of 10,000 files. Each
file has 1 KB. The folder is in memory if the machine has /dev/shm.

In the third measurement, 200 authors publish one realm each over HTTP at the same moment. Meanwhile
a visitor reads a cached style sheet 100 times a second, and another author writes a small file 10
times a second. Each of these requests is due at a fixed moment. The time of a request is measured
from that moment, even if the client sends the request later. A client that gets a 503 waits for the
time in Retry-After, and sends the request again. No Celery worker runs, so no page is rendered.
"""

import http.client
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.support.comparing import Bar, Case, Table, WrongBytes, compare
from bench.support.filling import content_of, fill, path_of
from bench.support.quantiles import share
from bench.support.running import Bench

SIZES = (100, 1_000, 10_000, 100_000)
COPIED = 10_000
#: How often each realm is published in one run.
TIMES = 30
API = "application/vnd.api+json"
SITE = "http://localhost:4201/reader/site/"
PAGE = b"body { color: black }" * 20


def main() -> int:
    bench = Bench("publish", __doc__)
    with bench:
        by_size(bench)
        at_once(bench, 20 if bench.quick else 200)
    return bench.finish()


# --- By the number of files --------------------------------------------------------------------


def by_size(bench: Bench) -> None:
    """Measures how long it takes to publish realms of several sizes. For comparison, also measures
    how long `cp -a` takes for a folder with as many files as one of the realms."""
    from tests.support import make

    sizes = (100, 1_000) if bench.quick else SIZES
    copied = 1_000 if bench.quick else COPIED
    owner = make.user("ada")
    realms = {}
    for size in sizes:
        realms[size] = make.source(f"http://localhost:4201/ada/of-{size}/", owner, {})
        fill(realms[size], size)
    times = 3 if bench.quick else TIMES

    def publish(size: int, changed: bool) -> Callable[[], float]:
        realm, url = realms[size], f"http://of-{size}.localhost:4201/"

        def run() -> float:
            taken = []
            for number in range(times):
                if changed:
                    make.write_paths(realm, {path_of(1): str(number).encode()})
                at = time.perf_counter()
                make.publish(realm, url)
                taken.append((time.perf_counter() - at) * 1000)
                _check(url, path_of(size), content_of(size))
                if changed:
                    _check(url, path_of(1), str(number).encode())
            return median(taken)

        return run

    with _folder(copied) as folder:
        cases = [Case(f"{size:,} files", publish(size, False)) for size in sizes]
        cases.append(Case(f"cp -a of {copied:,} files", lambda: _copy(folder, copied)))
        least, most, same = (f"{size:,} files" for size in (sizes[0], sizes[-1], copied))
        table = compare(
            "time of a publish",
            unit="ms",
            better="lower",
            runs=bench.runs,
            cases=cases,
            reference=least,
        )
    bench.add(table)
    bench.judge(
        Bar(
            f"a publish of {same} is at least 20 times as fast as a copy of as many files",
            table.ratio(cases[-1].name, same),
            at_least=20,
        )
    )
    again = compare(
        "time of a publish after one file has changed", unit="ms", better="lower",
        runs=bench.runs, cases=[Case(f"{size:,} files", publish(size, True)) for size in sizes],
    )  # fmt: skip
    bench.add(again)
    for what, found in (("if no file has changed", table), ("if one file has changed", again)):
        bench.judge(
            Bar(
                f"{what}, publishing {most} takes at most 1.5 times as long as publishing {least}",
                found.ratio(most, least),
                at_most=1.5,
            )
        )


def _check(url: str, path: str, content: bytes) -> None:
    """Raises WrongBytes unless the file at `path` of a published realm has this content."""
    from realms.serving.answers import committed
    from realms.serving.contents import Variant

    found = committed(Variant.SOURCE, url + path).content
    if found.status != 200 or found.body != content:
        raise WrongBytes(f"{url}{path}: status {found.status}, {bytes(found.body)[:80]!r}")


@contextmanager
def _folder(count: int) -> Iterator[Path]:
    """Makes a folder with the same files as a realm of `count` files (`fill`). The folder is in
    memory if the machine has /dev/shm."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="realm-bench-", dir=memory if memory.is_dir() else None
    ) as made:
        source = Path(made) / "source"
        for number in range(1, count + 1):
            path = source / path_of(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content_of(number))
        yield source


def _copy(source: Path, count: int) -> float:
    draft, shown = source.with_name("draft"), source.with_name("shown")
    at = time.perf_counter()
    subprocess.run(["cp", "-a", str(source), str(draft)], check=True)
    draft.rename(shown)
    taken = (time.perf_counter() - at) * 1000
    if (shown / path_of(count)).read_bytes() != content_of(count):
        raise WrongBytes("a copied file differs from its original")
    shutil.rmtree(shown)
    return taken


# --- Many publishes at once --------------------------------------------------------------------


def at_once(bench: Bench, count: int) -> None:
    """Measures how long other users' reads and writes take, first without publishes, and then
    during `count` publishes at once."""
    from tests.support import make
    from tests.support.cluster import cluster

    login = make.realm_login(make.source(SITE, make.user("reader"), {"page.css": PAGE}), "reader")
    sources = []
    for number in range(count):
        name = f"author{number}"
        url = f"http://localhost:4201/{name}/site/"
        make.source(url, make.user(name), {"index.css": name.encode()})
        sources.append((url, f"http://{name}.localhost:4201/", make.login(name)))
    names = ("reads, alone", "reads", "writes, alone", "writes")
    found: dict[str, list[float]] = {name: [] for name in names}
    taken: list[float] = []
    refusals: list[float] = []
    with cluster(bench.folder, 1) as fleet:
        port = fleet.replicas[0].port
        for _ in range(bench.runs):
            alone = _watched(port, login, lambda: time.sleep(0.5 if bench.quick else 3))
            refused: list[str] = []
            act = partial(_publish_all, port, sources, refused)
            during = _watched(port, login, lambda act=act: taken.append(act()))  # type: ignore[misc]
            refusals.append(len(refused))
            for kind in ("reads", "writes"):
                found[f"{kind}, alone"].append(share(alone[kind], 99) * 1000)
                found[kind].append(share(during[kind], 99) * 1000)
    table = Table(
        f"time of a request, alone or during {count} publishes: p99",
        "ms",
        "lower",
        found,
        names[0],
    )
    bench.add(table)
    label = f"{count} publishes"
    bench.add(
        Table("time until the last of the realms is published", "s", "lower", {label: taken}, label)
    )
    bench.add(
        Table("answers with status 503 to publish requests", "answers", "lower", {label: refusals})
    )
    for kind, limit in (("reads", 100), ("writes", 1000)):
        bench.judge(
            Bar(
                f"p99 of the time of {kind} during {count} publishes, in ms",
                table.median(kind),
                at_most=limit,
            )
        )


def _watched(port: int, login: dict[str, str], act: Callable[[], object]) -> dict[str, list[float]]:
    """Runs `act` while two processes send reads and writes to the web service at `port`. Returns
    the durations of the reads and of the writes. Unit: seconds."""
    context = multiprocessing.get_context("fork")
    from django.db import connections

    connections.close_all()
    stop = context.Event()
    channels = {}
    for kind, rate in (("reads", 100), ("writes", 10)):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(
            target=_asking, args=(kind, rate, port, login, stop, sending), daemon=True
        )
        process.start()
        channels[kind] = process, receiving
    try:
        time.sleep(0.2)
        act()
        time.sleep(0.2)
    finally:
        stop.set()
    found = {}
    for kind, (process, receiving) in channels.items():
        samples = receiving.recv()
        process.join(5)
        if isinstance(samples, str):
            raise WrongBytes(samples)
        found[kind] = samples
    return found


def _asking(kind: str, rate: int, port: int, login: dict[str, str], stop: Any, found: Any) -> None:
    """Sends `rate` requests a second to the web service until `stop` is set. Then sends the
    durations of the requests to the pipe `found`. If an answer is wrong, ends early and sends an
    error text to the pipe instead."""
    from tests.support.web import SOURCE, ask

    reading = kind == "reads"
    times: list[float] = []
    began = time.perf_counter()
    while not (times and stop.is_set()):
        due = began + len(times) / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        if reading:
            answer = ask(port, "GET", f"{SITE}page.css")
        else:
            body = str(due).encode()
            answer = ask(port, "POST", f"{SITE}new.css", accept=SOURCE, body=body, headers=login)
        if answer.status == 503:
            # The time of this request counts from `due`, so it includes the wait and the next
            # attempt.
            time.sleep(int(answer.headers["retry-after"]))
            continue
        good = answer.body == PAGE if reading else answer.status == 204
        if not good:
            found.send(f"{kind}: status {answer.status}, {answer.body[:200]!r}")
            return
        times.append(time.perf_counter() - due)
    found.send(times)


def _publish_all(
    port: int, sources: list[tuple[str, str, dict[str, str]]], refused: list[str]
) -> float:
    """Publishes all realms of `sources` at once, and returns how long that takes. Unit: seconds. A
    client that gets a 503 adds the published URL to `refused`, waits, and asks again."""
    wrong: list[str] = []
    start = threading.Barrier(len(sources) + 1)

    def publish(source: str, published: str, login: dict[str, str]) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        client.connect()
        start.wait()
        body = json.dumps({"sourceRealmURL": source, "publishedRealmURL": published})
        headers = {"Host": "localhost:4201", "Accept": API, "Content-Type": API, **login}
        while True:
            client.request("POST", "/_publish-realm", body, headers)
            answer = client.getresponse()
            told = answer.read()
            if answer.status != 503:
                break
            refused.append(published)
            time.sleep(int(answer.headers["Retry-After"]))
        if answer.status != 202:
            wrong.append(f"{published}: status {answer.status}, {told[:200]!r}")
        client.close()

    threads = [threading.Thread(target=publish, args=each, daemon=True) for each in sources]
    for thread in threads:
        thread.start()
    start.wait()
    at = time.perf_counter()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - at
    if wrong:
        raise WrongBytes(f"{len(wrong)} publishes failed, for example: {wrong[0]}")
    for source, published, _ in sources:
        _check(published, "index.css", source.split("/")[3].encode())
    return taken


if __name__ == "__main__":
    sys.exit(main())
