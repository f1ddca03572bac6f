"""Uses a Hypothesis state machine to test promises P1 and P6 of the README.

The test uses the real database and a real LISTEN connection. The state machine changes realms and
records the expected content of each generation. Before any SQL statement of a change, the process
that makes the change may be killed, or its database connection may be terminated. The process may
also be killed right after the commit. In each case, notifications must be sent for exactly the
committed changes (P1). Each realm must have either its complete old content or its complete new
content, and each published realm a job to render its newest generation (P6).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import pytest
from django.db import Error as DatabaseError
from django.db import connection, connections
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from notifications.board import now_ns
from notifications.channels import (
    Notification,
    all_files_changed,
    board_keys,
    file_change,
    index_swapped,
    realm_changed,
    realm_definitions_cleared,
)
from notifications.emit import local_board
from realms.access.auth import Caller
from realms.content.history import versions_at
from realms.models import Publication, Realm, RealmTombstone
from realms.publishing.publish import delete_realm, publish_realm, rollback_realm, unpublish_realm
from realms.serving import answers
from reindex.models import ReindexJob
from tests.models.publishing_books import ENDS, WHICH, End, Files, Killed, Shown
from tests.support import make
from tests.support.clients.asking import ask
from tests.support.gates import PATIENCE
from tests.support.listening.hearing import Ear, Heard, connect, ear

PATHS = ("a.txt", "b.txt")
CALLER = Caller("ada")
#: The test uses fewer examples than usual, because each step sends many statements to a database.
EXAMPLES = settings.default.max_examples // 8 if settings.default else 12
_examples = count()


class Publishing(RuleBasedStateMachine):
    """A state machine. Its rules change two source realms and two published realms."""

    #: The test sets `ear`, which receives notifications, and `owner`, who owns all realms.
    ear: Ear
    owner: Any
    #: A thread with a separate database connection.
    elsewhere: ThreadPoolExecutor
    crashes = 0
    hits = 0

    def __init__(self) -> None:
        super().__init__()
        number = next(_examples)
        self.sources = [f"http://localhost:4201/ada/{name}{number}/" for name in "st"]
        self.targets = [f"http://{name}{number}.localhost:4201/" for name in "pq"]
        self.books: dict[str, Shown] = {}
        self.highest: dict[str, int] = {}
        self.texts = count(1)
        self.ear.heard()
        local_board().go_live(now_ns() + 3600 * 10**9)
        self._create(self.sources[0])
        self.publish(0, 0, End("well"))

    # --- changes ---

    @precondition(lambda self: self._standing(self.sources))
    @rule(which=WHICH, path=st.sampled_from(PATHS), same=st.booleans(), end=ENDS)
    def write(self, which: int, path: str, same: bool, end: End) -> None:
        """Writes a file. With `same`, writes the content that the file already has, if it exists.
        Such a write changes nothing."""
        book = self._one_of(self.sources, which)
        text = self._text()
        body = book.files.get(path, text) if same else text
        realm = Realm.objects.get(url=book.url)

        def change() -> None:
            make.write_paths(realm, {path: body})

        new = {} if book.files.get(path) == body else {book.url: {**book.files, path: body}}
        self._do(change, end, self._written(new), [file_change(url, path) for url in new])

    @precondition(lambda self: any(book.files for book in self._standing(self.sources)))
    @rule(which=WHICH, end=ENDS)
    def delete_file(self, which: int, end: End) -> None:
        filled = [book.url for book in self._standing(self.sources) if book.files]
        book = self._one_of(filled, which)
        path = sorted(book.files)[0]
        realm = Realm.objects.get(url=book.url)
        left = {name: body for name, body in book.files.items() if name != path}
        self._do(
            lambda: make.remove(realm, path),
            end,
            self._written({book.url: left}),
            [file_change(book.url, path)],
        )

    @precondition(lambda self: len(self._standing(self.sources)) < 2)
    @rule(end=ENDS)
    def create(self, end: End) -> None:
        """Creates a source realm, perhaps at the URL of a deleted realm."""
        self._create(next(url for url in self.sources if url not in self.books), end)

    def _create(self, url: str, end: End | None = None) -> None:
        files = {PATHS[0]: self._text()}
        first = self.highest.get(url, 0) + 1

        def note() -> None:
            self.books[url] = Shown(url, first + 1, {first: {}, first + 1: files})

        told = [realm_changed(url), file_change(url, PATHS[0])]
        self._do(lambda: make.source(url, self.owner, files), end or End("well"), note, told)

    @precondition(lambda self: self._standing(self.sources))
    @rule(which=WHICH, to=WHICH, end=ENDS)
    def publish(self, which: int, to: int, end: End) -> None:
        """Publishes one of the two source realms at one of the two published URLs. The URL may
        already show the same or the other source realm."""
        source = self._one_of(self.sources, which)
        url = self.targets[to]
        self._do(
            lambda: publish_realm(source.url, url, CALLER),
            end,
            lambda: self._shown(url, source.url, source.generation),
            self._told_of_showing(url, source.url),
        )

    @precondition(lambda self: self._rollable())
    @rule(to=WHICH, back=st.integers(0, 2), end=ENDS)
    def rollback(self, to: int, back: int, end: End) -> None:
        """Rolls back a published realm to an earlier publication."""
        book = self._one_of(self._rollable(), to)
        earlier = self._earlier(book)
        generation = earlier[back % len(earlier)]
        source, at = book.publications[generation]
        self._do(
            lambda: rollback_realm(book.url, CALLER, generation),
            end,
            lambda: self._shown(book.url, source, at),
            self._told_of_showing(book.url, source),
        )

    @precondition(lambda self: self._standing(self.targets))
    @rule(to=WHICH, end=ENDS)
    def unpublish(self, to: int, end: End) -> None:
        book = self._one_of(self.targets, to)
        self._do(
            lambda: unpublish_realm(book.url, CALLER),
            end,
            lambda: self._gone([book.url]),
            self._told_of_end(book),
        )

    @precondition(lambda self: self._standing(self.sources))
    @rule(which=WHICH, end=ENDS)
    def delete(self, which: int, end: End) -> None:
        """Deletes a source realm and the published realms that show it."""
        book = self._one_of(self.sources, which)
        copies = [each for each in self.books.values() if each.source == book.url]
        gone = [*copies, book]
        self._do(
            lambda: delete_realm(book.url, CALLER),
            end,
            lambda: self._gone([each.url for each in gone]),
            [told for each in gone for told in self._told_of_end(each)],
        )

    # --- the expected state ---

    def _standing(self, urls: list[str]) -> list[Shown]:
        return [self.books[url] for url in urls if url in self.books]

    def _one_of(self, urls: list[str], which: int) -> Shown:
        standing = self._standing(urls)
        return standing[which % len(standing)]

    def _rollable(self) -> list[str]:
        return [each.url for each in self._standing(self.targets) if self._earlier(each)]

    def _earlier(self, book: Shown) -> list[int]:
        """Returns the generations of those earlier publications to which a rollback is possible,
        newest first. If a publication has the source realm and the source generation of the current
        publication, a rollback to it is refused, because the realm already shows its content."""
        newest, *earlier = sorted(book.publications, reverse=True)
        return [each for each in earlier if book.publications[each] != book.publications[newest]]

    def _text(self) -> bytes:
        return f"text {next(self.texts)}".encode()

    def _written(self, new: dict[str, Files]) -> Callable[[], None]:
        def note() -> None:
            for url, files in new.items():
                book = self.books[url]
                book.generation += 1
                book.history[book.generation] = files

        return note

    def _shown(self, url: str, source: str, at: int) -> None:
        book = self.books.get(url)
        if book is None:
            first = self.highest.get(url, 0) + 1
            book = self.books[url] = Shown(url, first - 1, {})
        book.generation += 1
        book.source = source
        book.publications[book.generation] = (source, at)
        book.history[book.generation] = self.books[source].history[at]

    def _gone(self, urls: list[str]) -> None:
        for url in urls:
            del self.books[url]
        for book in self.books.values():
            # A rollback to publications of a deleted source realm isn't possible.
            book.publications = {
                generation: shown
                for generation, shown in book.publications.items()
                if shown[0] not in urls
            }

    def _told_of_showing(self, url: str, source: str) -> list[Notification]:
        told = [all_files_changed(url), realm_definitions_cleared(url), realm_changed(url)]
        before = self.books[url].source if url in self.books else None
        # The new and the old source realm of the URL are announced too, if they differ.
        moved = [] if before == source else [source] if before is None else [source, before]
        return [*told, *map(realm_changed, moved)]

    def _told_of_end(self, book: Shown) -> list[Notification]:
        told = [
            all_files_changed(book.url),
            realm_definitions_cleared(book.url),
            index_swapped(book.url),
            # Deleting the realm's permissions sends this notification.
            realm_changed(book.url),
            Notification("realm_registry", f"delete:{book.url}"),
        ]
        return told if book.source is None else [*told, realm_changed(book.source)]

    # --- making and interrupting a change ---

    def _do(
        self, change: Callable[[], Any], end: End, note: Callable[[], None],
        told: list[Notification],
    ) -> None:  # fmt: skip
        """Makes a change that `end` may interrupt, and checks reads and notifications. If the
        change commits, calls `note`, which records the expected state, and expects exactly the
        notifications in `told`."""
        committed = True
        try:
            with self._ended(end):
                change()
        except (Killed, DatabaseError):
            assert end.how in ("killed", "terminated")
            committed = False
            type(self).crashes += 1
            if end.how == "terminated":
                connection.close()
        expected: set[Heard] = set()
        if committed:
            note()
            expected = {(each.channel, each.payload) for each in told}
        self._every_pinned_read_is_right()
        heard = self.ear.heard()
        assert len(heard) == len(set(heard)), "P1: a notification was sent twice"
        assert set(heard) == expected, "P1: the notifications don't fit the commits"
        # No sidecar runs here, so move the slots of the changes as a sidecar would.
        for channel, payload in heard:
            local_board().bump(board_keys(channel, payload) or ())

    @contextmanager
    def _ended(self, end: End) -> Iterator[None]:
        """Interrupts the change that runs in the block, in the way that `end` says."""
        if end.how == "well":
            yield
            return
        if end.how == "after the commit":
            # A process that is killed right after its commit doesn't run its commit hooks. The
            # hooks would move slots on the board and send a Celery message to the workers.
            with patch.object(connection, "run_and_clear_commit_hooks", lambda: None):
                yield
            connection.run_on_commit.clear()
            return
        statements = count()

        def execute(run: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
            if next(statements) == end.at and connection.in_atomic_block:
                assert self.ear.heard() == [], "P1: a notification came before the commit"
                self.elsewhere.submit(self._every_read_is_right).result(PATIENCE)
                if end.how == "killed":
                    raise Killed
                with connect() as hand:
                    hand.execute(
                        "SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid]
                    )
            return run(sql, parameters, many, context)

        with connection.execute_wrapper(execute):
            yield

    # --- checks of the state ---

    def _every_read_is_right(self) -> None:
        """Checks reads that name no generation, both of existing and of missing realms."""
        for url in (*self.sources, *self.targets):
            book = self.books.get(url)
            for path in PATHS:
                asked = ask(url + path)
                body = book.files.get(path) if book else None
                assert asked.body == body, f"P6: {url}{path} doesn't have its committed content"
                assert asked.generation is None or book is not None
                type(self).hits += asked.hit

    def _every_pinned_read_is_right(self) -> None:
        """Checks reads with the newest generation as the minimum, and reads at exactly one of the
        last generations. The slots of the last change haven't moved on the board yet."""
        for book in self.books.values():
            asked = ask(book.url + PATHS[0], at_least=book.generation)
            assert asked.body == book.files.get(PATHS[0]), "P2: older than the minimum"
            for generation in sorted(book.history)[-3:]:
                content = answers.source_at(book.url, generation, PATHS[0]).content
                exact = content.body if content.status == 200 else None
                if book.source is None or generation in book.publications:
                    assert exact == book.history[generation].get(PATHS[0]), "P6: history changed"

    @invariant()
    def what_stands_is_whole(self) -> None:
        mine = [*self.sources, *self.targets]
        standing = {realm.url: realm for realm in Realm.objects.filter(url__in=mine)}
        assert {url: r.generation for url, r in standing.items()} == {
            url: book.generation for url, book in self.books.items()
        }, "P6: the realms have neither their old nor their new generations"
        for url, realm in standing.items():
            book = self.books[url]
            assert realm.generation >= self.highest.get(url, 0), "P6: a generation decreased"
            self.highest[url] = realm.generation
            manifest = versions_at(realm, realm.generation).values_list("path", "blob__data")
            assert {path: bytes(data or b"") for path, data in manifest} == book.files, (
                "P6: a realm's files are incomplete"
            )
            if book.source is not None:
                newest = Publication.objects.filter(realm=realm).first()
                assert newest is not None
                assert newest.generation == realm.generation
        graves = RealmTombstone.objects.filter(url__in=mine).values_list("url", "generation")
        assert dict(graves) == {
            url: at for url, at in self.highest.items() if url not in self.books
        }, "P6: the tombstone of a deleted realm is missing or wrong"

    @invariant()
    def what_is_owed_is_written_down(self) -> None:
        live = ReindexJob.objects.live().filter(realm_url__in=[*self.sources, *self.targets])
        assert dict(live.values_list("realm_url", "generation")) == {
            url: book.generation for url, book in self.books.items() if book.source is not None
        }, "P6: a job is missing, unneeded or of a wrong generation"

    @invariant()
    def what_is_read_is_what_stands(self) -> None:
        self._every_read_is_right()


@pytest.mark.django_db(transaction=True)
def test_killed_publishers_leave_complete_realms_and_notify_only_commits(
    owner: Any, sent: Any
) -> None:
    answers.caches.cache_clear()
    Publishing.owner = owner
    try:
        with ear() as Publishing.ear, ThreadPoolExecutor(1) as Publishing.elsewhere:
            try:
                run_state_machine_as_test(
                    Publishing, settings=settings(max_examples=EXAMPLES, stateful_step_count=20)
                )
            finally:
                Publishing.elsewhere.submit(connections.close_all).result(PATIENCE)
    finally:
        local_board().go_live(0)
    assert Publishing.crashes > 10, "a run without crashes proves nothing"
    assert Publishing.hits > 100, "a run without cache hits proves nothing"
