"""Compares a worker on a RabbitMQ quorum queue with a worker on a classic queue.

Each kind of queue is measured with one replica and one worker of two processes. The queue is on a
virtual host of RabbitMQ that the script makes for the measurement and then removes. The sweeper, a
task that sends lost messages again, runs only once a minute. So if the worker starts a job within
seconds, a message has reached the worker.

The script measures two times. The first is the time from the request of a publish until the pages
of the published realm are shown. The second begins with the answer to a write, which changes a file
of a source realm. It ends when the draft pages of the source realm are shown. It includes a delay,
because the job for draft pages is due only a moment after the write. The measurement needs RabbitMQ
and `rabbitmqctl` on this machine.
"""

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kombu import Connection

from bench.fleet.figures import say, spread, table
from bench.fleet.installation import ORIGIN, installation
from bench.fleet.postgres import scratch

SOURCE, SITE = f"{ORIGIN}/ada/bench/", "http://ada.localhost:4201/"
KINDS = ("classic", "quorum")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cards", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="5 cards, twice")
    options = parser.parse_args()
    if options.quick:
        options.cards, options.repeat = 5, 2
    if shutil.which("rabbitmqctl") is None:
        parser.error("rabbitmqctl is not installed")
    say(str(__doc__))
    # The messages of this process don't go to RabbitMQ, and would reach no worker. So a write in
    # this process must not queue a job for draft pages.
    with scratch() as server, installation(server, REALM_INDEX_SOURCES="0") as folder:
        rows = []
        for kind in KINDS:
            with virtual_host(f"realm-scale-{kind}-{os.getpid()}") as broker:
                found = measure(broker, kind, folder, options)
            rows.append((kind, *(spread(each) for each in found)))
    table(
        f"{options.cards} cards, {options.repeat} times: seconds until pages are shown, median "
        "(lowest to highest)",
        ("queue", "publish", "draft after a write"),
        rows,
    )
    return 0


@contextmanager
def virtual_host(name: str) -> Iterator[str]:
    """Makes a virtual host of RabbitMQ, yields a broker URL for the virtual host and the user
    `guest`, and removes the virtual host after the `with` block."""
    _control("add_vhost", name)
    try:
        _control("set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")
        yield f"amqp://guest:guest@127.0.0.1:5672/{name}"
    finally:
        _control("delete_vhost", name)


def _control(*arguments: str) -> None:
    subprocess.run(["rabbitmqctl", "--quiet", *arguments], check=True)


def measure(
    broker: str, kind: str, folder: Path, options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    from realms.models import Realm
    from reindex.models import IndexHead
    from tests.support import make
    from tests.support.cluster import cluster

    realm = Realm.objects.filter(url=SOURCE).first()
    if realm is None:
        cards = {
            f"c{n}.json": make.card("./post", "Post", title=f"Card {n}", body="text")
            for n in range(options.cards)
        }
        realm = make.source(SOURCE, make.user("ada"), {**make.SITE, **cards})

    def shown(url: str, generation: int) -> Callable[[], bool]:
        heads = IndexHead.objects.filter(realm_url=url, generation__gte=generation)
        return lambda: heads.exists()

    published: list[float] = []
    drafts: list[float] = []
    told = {
        "CELERY_BROKER_URL": broker, "REALM_QUEUE_KIND": kind, "REALM_SWEEP_SECONDS": "60",
        "REALM_INDEX_SOURCES": "1", "REALM_LOG_LEVEL": "WARNING",
    }  # fmt: skip
    with cluster(folder, 1, **told) as fleet:
        fleet.wait_reported()
        fleet.start_worker(kind)
        _wait(lambda: _consumers(broker, kind) > 0)
        _publish(fleet, make, shown)
        # The first turn isn't counted. In this turn the worker may not have declared the queues of
        # delayed messages yet, and a message to such a queue is lost. The message's job then waits
        # until the sweeper sends another message.
        for turn in range(options.repeat + 1):
            # Each turn changes the module that all cards use, so every card is rendered.
            text = make.POST_MODULE.replace("edition one", f"edition {kind} {turn}")
            answer = _ask(fleet, make, "POST", f"{SOURCE}post.tsx", text)
            began = time.perf_counter()
            _wait(shown(SOURCE, int(answer.headers["x-realm-generation"])))
            drafts.append(time.perf_counter() - began)
            published.append(_publish(fleet, make, shown))
    return published[1:], drafts[1:]


def _consumers(broker: str, kind: str) -> int:
    """Returns the number of consumers of the default queue."""
    from settings.broker import celery_queues

    name = celery_queues("", kind)["CELERY_TASK_DEFAULT_QUEUE"]
    with Connection(broker) as connection:
        channel: Any = connection.default_channel
        try:
            return int(channel.queue_declare(name, passive=True).consumer_count)
        except connection.channel_errors:
            return 0


def _publish(fleet: Any, make: Any, shown: Callable[[str, int], Callable[[], bool]]) -> float:
    """Publishes the realm SOURCE at the URL SITE, and returns the time until the pages of SITE are
    shown. Unit: seconds."""
    began = time.perf_counter()
    body = f'{{"sourceRealmURL": "{SOURCE}", "publishedRealmURL": "{SITE}"}}'
    answer = _ask(fleet, make, "POST", f"{ORIGIN}/_publish-realm", body)
    _wait(shown(SITE, int(answer.headers["x-realm-generation"])))
    return time.perf_counter() - began


def _ask(fleet: Any, make: Any, method: str, url: str, body: str) -> Any:
    from realms.models import Realm

    source = Realm.objects.get(url=SOURCE)
    at_realm = url.startswith(SOURCE)
    headers = make.realm_login(source, "ada") if at_realm else make.login("ada")
    kind = "application/vnd.card+source" if at_realm else "application/vnd.api+json"
    answer = fleet.replicas[0].request(method, url, accept=kind, body=body, headers=headers)
    assert answer.status in (202, 204), answer.text
    return answer


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited for the worker for two minutes, in vain")
        time.sleep(0.02)
