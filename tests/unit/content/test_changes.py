"""Tests which effects a change of a realm has: which board keys move, which notifications are sent,
which definitions are dropped, and which jobs are needed.

When a board key moves, the cached data that depends on the key becomes stale. Pure functions
compute all these effects from a `Change`. The last tests check when receivers get the changes of a
transaction.
"""

from dataclasses import replace
from typing import Any

import pytest

from notifications.channels import (
    all_files_changed,
    path_key,
    realm_changed,
    realm_key,
)
from realms.content import changes
from realms.content.changes import (
    Change,
    changed_for_readers,
    dispatch_at_end,
    drops_all_definitions,
    keys_moved_here,
    moved,
    needs_job,
    notifications_of,
    raise_change,
)

URL = "http://ada.localhost:4201/"
ONE, TWO = "http://localhost:4201/ada/one/", "http://localhost:4201/ada/two/"

WRITTEN = Change(ONE, "source", 3, paths=frozenset(["a.ts", "b.json"]))
MADE = Change(ONE, "source", 1, exists_before=False)
DELETED = Change(ONE, "source", 3, paths=None, exists_after=False)
PUBLISHED = Change(
    URL, "published", 1, paths=None, shows_after=ONE, readable_after=True, exists_before=False
)
REPUBLISHED = Change(URL, "published", 2, paths=None, shows_before=ONE, shows_after=ONE)
POINTED = replace(REPUBLISHED, shows_after=TWO)
UNPUBLISHED = Change(URL, "published", 2, paths=None, shows_before=ONE, exists_after=False)
SHARED = Change(ONE, "source", 3, rights=True, readable_before=False, readable_after=False)
OPENED = replace(SHARED, readable_after=True)
CLOSED = replace(OPENED, readable_before=True, readable_after=False)
LIBRARY = Change(ONE, "bootstrap", 3, paths=None)

WHOLE = {realm_key(ONE)}
SITE = {realm_key(URL)}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (WRITTEN, {path_key(f"{ONE}a.ts"), path_key(f"{ONE}b.json")}),
        (replace(WRITTEN, paths=frozenset(map(str, range(33)))), {realm_key(ONE)}),
        (MADE, WHOLE),
        (DELETED, WHOLE),
        (PUBLISHED, SITE),
        (REPUBLISHED, {realm_key(URL)}),
        (UNPUBLISHED, SITE),
        (SHARED, WHOLE),
        (OPENED, WHOLE),
    ],
)
def test_this_replica_moves_the_keys_that_triggers_announce_to_peers(
    change: Change, keys: set[str]
) -> None:
    assert keys_moved_here(change) == keys


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (WRITTEN, []),
        (MADE, []),
        (SHARED, []),
        (DELETED, [all_files_changed(ONE)]),
        (PUBLISHED, [all_files_changed(URL), realm_changed(ONE)]),
        (REPUBLISHED, [all_files_changed(URL)]),
        (POINTED, [all_files_changed(URL), realm_changed(ONE), realm_changed(TWO)]),
        (UNPUBLISHED, [all_files_changed(URL), realm_changed(ONE)]),
    ],
)
def test_a_change_notifies_peers_of_the_realm_and_of_moved_sources(
    change: Change, told: list[Any]
) -> None:
    assert notifications_of(change) == told
    assert {each.payload for each in told} >= {f"upsert:{url}" for url in moved(change)}


@pytest.mark.parametrize(
    ("change", "all_of_them"),
    [
        (WRITTEN, False), (MADE, False), (DELETED, True), (PUBLISHED, True), (REPUBLISHED, True),
        (UNPUBLISHED, True), (SHARED, True), (CLOSED, True), (LIBRARY, True),
    ],
)  # fmt: skip
def test_a_change_of_all_files_or_of_rights_drops_all_definitions(
    change: Change, all_of_them: bool
) -> None:
    assert drops_all_definitions(change) == all_of_them


@pytest.mark.parametrize(
    ("change", "due"),
    [
        (WRITTEN, True), (MADE, False), (DELETED, False), (PUBLISHED, True), (REPUBLISHED, True),
        (UNPUBLISHED, False), (OPENED, False), (LIBRARY, False),
    ],
)  # fmt: skip
def test_a_realm_needs_a_job_if_it_exists_and_its_pages_change(change: Change, due: bool) -> None:
    assert needs_job(change, index_sources=True) == due
    assert needs_job(change, index_sources=False) == (due and change.kind == "published")


@pytest.mark.parametrize(
    ("change", "readers", "appeared"),
    [
        (WRITTEN, {ONE}, False),
        (MADE, set(), False),
        (DELETED, {ONE}, False),
        (PUBLISHED, {URL, ONE}, True),
        (REPUBLISHED, {URL}, False),
        (POINTED, {URL, ONE, TWO}, False),
        (UNPUBLISHED, {URL, ONE}, False),
        (SHARED, set(), False),
        (OPENED, set(), True),
        (CLOSED, {ONE}, False),
        (LIBRARY, {ONE}, False),
    ],
)
def test_a_change_names_the_realms_whose_readers_need_jobs(
    change: Change, readers: set[str], appeared: bool
) -> None:
    assert changed_for_readers(change) == readers
    assert change.appeared == appeared


# --- Raising -------------------------------------------------------------------------------------


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Change, ...]]:
    """Replaces all receivers of changes by one that stores the changes of each call in a list.
    Returns this list."""
    calls: list[tuple[Change, ...]] = []
    monkeypatch.setattr(changes, "_receivers", [lambda raised: calls.append(tuple(raised))])
    return calls


def test_receivers_get_all_changes_of_a_transaction_in_one_call(received: Any) -> None:
    with dispatch_at_end():
        raise_change(WRITTEN)
        with dispatch_at_end():
            raise_change(MADE, OPENED)
        assert received == []
    assert received == [(WRITTEN, MADE, OPENED)]
    raise_change(DELETED)
    assert received[1:] == [(DELETED,)]


def test_receivers_get_no_changes_of_a_block_that_failed(received: Any) -> None:
    with pytest.raises(ZeroDivisionError), dispatch_at_end():
        raise_change(WRITTEN)
        raise ZeroDivisionError
    with dispatch_at_end():
        pass
    raise_change()
    assert received == []
