"""Defines the steps of the demo and their measurements.

The demo's two replicas are called a and b. The sidecar of a replica is the process that tells the
replica's caches which files have changed.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from rich.console import Console
from supervise import Supervisor

SOURCE = "application/vnd.card+source"
API = "application/vnd.api+json"


class StepFailed(Exception):
    """A step of the demo failed."""


@dataclass
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Show:
    """The demo's steps. `script/demo.py` calls the public methods in the order of this class."""

    def __init__(
        self,
        console: Console,
        fleet: Supervisor,
        origin: str,
        stop: threading.Event,
        user: str,
        password: str,
    ) -> None:
        self._console, self._fleet, self._origin, self._stop = console, fleet, origin, stop
        self._user, self._password = user, password
        self._token = ""

    # --- the steps ---

    def start(self) -> None:
        """Migrates the database, creates the demo's user, and starts the processes."""
        from django.contrib.auth import get_user_model
        from django.core.management import call_command
        from django.db import connection

        with self._step("Postgres is up and migrated") as say:
            call_command("migrate", verbosity=0)
            with connection.cursor() as cursor:
                cursor.execute("SHOW server_version")
                version = cursor.fetchone()
            embedded = "embedded" in connection.settings_dict["ENGINE"]
            say(f"{'embedded ' if embedded else ''}{version[0].split()[0] if version else ''}")
        user, _ = get_user_model().objects.get_or_create(
            username=self._user, defaults={"is_staff": True, "is_superuser": True}
        )
        user.set_password(self._password)
        user.save()
        with self._step("two replicas serve, each with two web workers and a live sidecar") as say:
            self._fleet.start()
            workers: set[str] = set()
            self._until(lambda: len(self._workers(workers)) == 4, 40, "4 web workers answer")
            for name in "ab":
                self._until(partial(self._live, name), 20, f"the sidecar of {name} is live")
            say(f"{len(workers)} web workers")

    def publish(self, folder: Path, examples: tuple[str, ...]) -> None:
        """Imports the example realms, publishes them through replica a, and waits until their pages
        are rendered."""
        from django.contrib.auth import get_user_model

        from realms.publishing.importing import files_in, import_files

        owner = get_user_model().objects.get(username=self._user)
        with self._step("the examples are imported") as say:
            files = 0
            for example in examples:
                url = self._source(example)
                content = files_in(folder / example, url)
                import_files(content, url, owner=owner, public=True, delete=True)
                files += len(content.files)
            say(f"{files} files in {len(examples)} realms")
        with self._step("a client signs in"):
            body = {"username": self._user, "password": self._password}
            session = self._post("/_server-session", body)
            self._token = session.headers["authorization"]
        generations = {}
        with self._step("the realms are published through replica a") as say:
            began = time.monotonic()
            for example in examples:
                generations[example] = self._publish(example)
            say(f"{(time.monotonic() - began) * 1000 / len(examples):.0f} ms each")
        with self._step("every card is rendered") as say:
            began = time.monotonic()
            for example, generation in generations.items():
                self._until(partial(self._ready, example, generation), 60, f"{example} is ready")
            rendered, carried, errors = _figures([self._site(example) for example in examples])
            if errors:
                raise StepFailed(f"{errors} of {rendered + carried} cards have an error document")
            unchanged = f", {carried} unchanged" if carried else ""
            say(f"{rendered} cards in {time.monotonic() - began:.1f} s{unchanged}")
        with self._step("both replicas serve the same front pages") as say:
            pages = [self._page(example) for example in examples]
            say(f"{sum(len(page) for page in pages) / 1024:.0f} KiB of HTML")

    def change_one_card(self, example: str, path: str) -> None:
        """Changes a card on replica a and publishes its realm again. Measures how soon replica b
        serves the changed card, and how soon both replicas serve the card's new page."""
        source = self._source(example) + path
        page = self._site(example) + path.removesuffix(".json")
        with self._step("both replicas answer from their caches, on every web worker") as say:
            for url in (source, page):
                accept = SOURCE if url is source else "text/html"
                say(f"{self._warm(url, accept)} web workers")
        mark = f"changed at {time.time_ns()}"
        with self._step("a card is changed over HTTP on replica a; b serves the new source") as say:
            self._change(source, mark)
            say(
                self._after(
                    lambda: mark in self._text("b", source, SOURCE), "b serves the new source"
                )
            )
        with self._step("the realm is published again; b serves the new bytes") as say:
            generation = self._publish(example)
            published_at = time.monotonic()
            published = self._site(example) + path
            say(
                self._after(
                    lambda: mark in self._text("b", published, SOURCE), "b serves the new bytes"
                )
            )
        self._see_pages(example, page, mark, generation, published_at)

    def lose_a_sidecar(self, example: str, path: str) -> None:
        """Kills the sidecar of replica b just before a publish. Checks that, from 2 s after the
        publish on, replica b serves only new bytes."""
        source, site = self._source(example) + path, self._site(example)
        page, published = site + path.removesuffix(".json"), site + path
        mark = f"published without a sidecar at {time.time_ns()}"
        self._warm(published, SOURCE)
        self._change(source, mark)
        with self._step("b's sidecar is killed, then the realm is published") as say:
            self._fleet.kill("sidecar-b")
            generation = self._publish(example)
            committed = time.monotonic()
            say(f"generation {generation}")
        with self._step("a read on b that asks for the new generation gets it at once") as say:
            pin = {"X-Realm-Min-Generation": str(generation)}
            began = time.monotonic()
            if mark not in self._ask("b", published, SOURCE, pin).body.decode():
                raise StepFailed("the read got older bytes")
            say(f"{(time.monotonic() - began) * 1000:.0f} ms")
        with self._step("b serves only new bytes 2 s after the publish, without a sidecar") as say:
            old, reads, last_old = 0, 0, committed
            while time.monotonic() < committed + 2.5:
                sent_at = time.monotonic()
                reads += 1
                if mark not in self._text("b", published, SOURCE):
                    old, last_old = old + 1, sent_at
            if last_old > committed + 2:
                raise StepFailed("b served old bytes more than 2 s after they were superseded")
            say(
                f"{reads} reads; {old} got old bytes, "
                f"the last {(last_old - committed) * 1000:.0f} ms after the publish"
            )
        self._see_pages(example, page, mark, generation, committed)
        with self._step("b's sidecar is started again; b answers from its caches again") as say:
            began = time.monotonic()
            self._fleet.release("sidecar-b")
            self._until(lambda: self._live("b"), 20, "the sidecar of b is live")
            self._warm(published, SOURCE)
            say(f"{time.monotonic() - began:.1f} s")

    def _see_pages(
        self, example: str, page: str, mark: str, generation: int, published_at: float
    ) -> None:
        with self._step("both replicas serve the new HTML") as say:
            for name in "ab":
                self._after(partial(self._shows, name, page, mark), f"{name} serves the new HTML")
            elapsed = time.monotonic() - published_at
            if not self._ready(example, generation):
                raise StepFailed("the pages are new, but the readiness check says they are not")
            say(f"{elapsed:.1f} s after the publish")

    # --- pieces ---

    @contextmanager
    def _step(self, title: str) -> Iterator[Callable[[str], None]]:
        figures: list[str] = []
        began = time.monotonic()
        with self._console.status(title):
            try:
                yield figures.append
            except StepFailed as failure:
                raise StepFailed(f"{title}: {failure}") from failure
        figure = figures[-1] if figures else f"{(time.monotonic() - began) * 1000:.0f} ms"
        self._console.print(f"[green]✓[/] {title} [dim]·[/] [bold]{figure}[/]", soft_wrap=True)

    def _until(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        if not self._fleet.wait_until(condition, seconds):
            raise StepFailed(f"after {seconds:.0f} s this is still not true: {what}")

    def _after(self, condition: Callable[[], Any], what: str) -> str:
        began = time.monotonic()
        self._until(condition, 40, what)
        elapsed = time.monotonic() - began
        return f"after {elapsed * 1000:.0f} ms" if elapsed < 1 else f"after {elapsed:.1f} s"

    def _source(self, example: str) -> str:
        return f"{self._origin}/{self._user}/{example}/"

    def _site(self, example: str) -> str:
        return f"http://{example}.localhost:{urlsplit(self._origin).port}/"

    def _publish(self, example: str) -> int:
        body = {
            "sourceRealmURL": self._source(example),
            "publishedRealmURL": self._site(example),
        }
        return int(self._post("/_publish-realm", body).headers["x-realm-generation"])

    def _post(self, path: str, body: dict[str, str]) -> Answer:
        headers = {"Authorization": self._token} if self._token else {}
        data = json.dumps(body).encode()
        answer = self._ask("a", self._origin + path, API, headers, "POST", data)
        if answer.status >= 300:
            raise StepFailed(f"{path} answered {answer.status}: {answer.body.decode()}")
        return answer

    def _change(self, url: str, mark: str) -> None:
        """Reads a card, adds the text `mark` to its summary, and writes the card."""
        from realms.access.auth import realm_token

        realm_url = "/".join(url.split("/")[:5]) + "/"
        token = realm_token(self._user, realm_url, ["read", "realm-owner", "write"], 60)
        card = json.loads(self._ask("a", url, SOURCE).body)
        attributes = card["data"]["attributes"]
        attributes["summary"] = f"{attributes['summary'].split(' (')[0]} ({mark})"
        headers = {"Authorization": token, "Content-Type": SOURCE}
        answer = self._ask("a", url, SOURCE, headers, "POST", json.dumps(card, indent=2).encode())
        if answer.status != 204:
            raise StepFailed(f"writing {url} answered {answer.status}: {answer.body.decode()}")

    def _ready(self, example: str, generation: int) -> bool:
        url = f"{self._site(example)}_readiness-check?awaitPrerenderHtml=true"
        answer = self._ask("b", url, API)
        return answer.status == 200 and int(answer.headers["x-realm-generation"]) >= generation

    def _page(self, example: str) -> str:
        pages = [self._ask(name, self._site(example), "text/html") for name in "ab"]
        if any(page.status != 200 for page in pages) or pages[0].body != pages[1].body:
            raise StepFailed(f"the replicas show different front pages of {example}")
        return pages[0].body.decode()

    def _warm(self, url: str, accept: str) -> int:
        """Requests `url` until every web worker of both replicas has answered from its cache.
        Returns the number of web workers."""
        hits: set[str] = set()

        def all_hit() -> bool:
            for name in "ab":
                answer = self._ask(name, url, accept)
                if answer.headers.get("x-boxel-cache") == "hit":
                    hits.add(answer.headers["x-realm-replica"])
            return len(hits) == 4

        self._until(all_hit, 20, f"all four web workers answer {url} from their caches")
        return len(hits)

    def _workers(self, seen: set[str]) -> set[str]:
        for name in "ab":
            try:
                answer = self._ask(name, f"{self._origin}/base/mod.ts", "*/*")
            except urllib3.exceptions.HTTPError:
                continue
            if answer.status == 200:
                seen.add(answer.headers["x-realm-replica"])
        return seen

    def _live(self, name: str) -> bool:
        from django.conf import settings

        from notifications.board import board_at

        return board_at(settings.DATA_DIR / f"board-{name}").live()

    def _text(self, name: str, url: str, accept: str) -> str:
        return self._ask(name, url, accept).body.decode()

    def _shows(self, name: str, page: str, mark: str) -> bool:
        return mark in self._text(name, page, "text/html")

    def _ask(
        self,
        name: str,
        url: str,
        accept: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """Requests a public URL from a replica. The connection is new, so any of the replica's web
        workers may answer."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {"Host": parts.netloc, "Accept": accept, **(headers or {})}
        port = self._fleet.ports[name]
        with urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=20, retries=False) as pool:
            answer = pool.urlopen(
                method, target, body=body, headers=sent, redirect=False, retries=False
            )
            received = {key.lower(): value for key, value in answer.headers.items()}
            return Answer(answer.status, received, answer.data)


def _figures(sites: list[str]) -> tuple[int, int, int]:
    """Returns three numbers for the jobs that made the sites' current pages: the rendered cards,
    the unchanged cards that were not rendered again, and the errors."""
    from reindex.models import IndexHead

    jobs = [
        head.job for head in IndexHead.objects.select_related("job").filter(realm_url__in=sites)
    ]
    return (
        sum(job.rendered for job in jobs),
        sum(job.carried for job in jobs),
        sum(job.errors for job in jobs),
    )
