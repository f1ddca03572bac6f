"""Tests which notifications `emit` sends at a commit, and which notifications database triggers
send for every write.

The tests also check the local board, a file of numbered slots. Each file and each realm has a key,
which stands for a slot. The process that commits a change moves the slots of the changed keys: it
gives them new random numbers. Cached values that depend on these slots are then stale.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError

from notifications.board import Slots
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    MAX_PATHS_PER_STATEMENT,
    MODULE_CACHE_INVALIDATED,
    REALM_FILE_CHANGES,
    REALM_REGISTRY,
    all_definitions_cleared,
    all_files_changed,
    file_change,
    index_swapped,
    path_key,
    realm_key,
)
from notifications.emit import (
    bump_at_commit,
    emit,
    local_board,
    notify_all_file_changes,
    notify_peers,
)
from realms.models import EVERYONE, Realm, RealmPermission
from tests.support import make
from tests.support.gates import PATIENCE, in_thread
from tests.support.listening.hearing import Ear, connect, ear

pytestmark = pytest.mark.django_db(transaction=True)

REALM = "http://localhost:4201/ada/elsewhere/"
A = file_change(REALM, "a.ts")
A_SLOTS = Slots([path_key(f"{REALM}a.ts")])
REALM_SLOTS = Slots([realm_key(REALM)])


@pytest.fixture
def listening() -> Iterator[Ear]:
    with ear() as made:
        yield made


# --- emit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("send", [emit, notify_peers], ids=lambda send: str(send.__name__))
def test_no_notification_can_be_sent_outside_a_transaction(
    listening: Ear, send: Callable[..., None]
) -> None:
    stamp = local_board().stamp(A_SLOTS)
    with pytest.raises(TransactionManagementError, match="inside the transaction"):
        send(A)
    assert listening.heard() == []
    assert local_board().unchanged(A_SLOTS, stamp)


def test_a_rolled_back_emit_announces_nothing_and_moves_no_key(listening: Ear) -> None:
    board = local_board()
    stamp = board.stamp(A_SLOTS)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        emit(A)
        raise ZeroDivisionError
    assert listening.heard() == []
    assert board.unchanged(A_SLOTS, stamp)


def test_a_rolled_back_savepoint_cancels_only_its_own_announcements(listening: Ear) -> None:
    board = local_board()
    stamps = board.stamp(A_SLOTS), board.stamp(REALM_SLOTS)
    with transaction.atomic():
        emit(all_files_changed(REALM))
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            emit(A)
            raise ZeroDivisionError
    assert listening.heard() == [(REALM_FILE_CHANGES, f"{REALM}:*")]
    assert board.unchanged(A_SLOTS, stamps[0])
    assert not board.unchanged(REALM_SLOTS, stamps[1])


def test_a_commit_announces_once_and_moves_the_local_board(
    listening: Ear,
) -> None:
    board = local_board()
    stamp = board.stamp(A_SLOTS)
    with transaction.atomic():
        emit(A, index_swapped(REALM))
        assert listening.heard() == [], "a notification was sent before the commit"
        assert board.unchanged(A_SLOTS, stamp), "the board moved before the commit"
    assert not board.unchanged(A_SLOTS, stamp)
    assert listening.heard() == [(A.channel, A.payload), ("realm_index_swapped", REALM)]
    assert listening.heard() == []


def test_a_listener_can_read_each_change_that_it_hears_of(owner: Any) -> None:
    """A listener can read each change as soon as it receives the change's notification. This is
    part of the promise P1 in README.md."""
    realm = make.source(REALM, owner, {})
    count = 50

    def read_on_receipt() -> list[tuple[str, int]]:
        found = []
        with connect() as other:
            for change in hearing.notifies(timeout=PATIENCE):
                generation, path = change.payload.removeprefix(f"{REALM}:").split("-")
                row = other.execute(
                    "SELECT generation FROM realms_realm WHERE url = %s", [REALM]
                ).fetchone()
                assert row is not None
                found.append((path, row[0] - int(generation)))
                if len(found) == count:
                    break
        return found

    with connect() as hearing:
        hearing.execute(f"LISTEN {REALM_FILE_CHANGES}")
        reader = in_thread(read_on_receipt)
        for number in range(count):
            with transaction.atomic():
                realm.refresh_from_db()
                Realm.objects.filter(pk=realm.pk).update(generation=realm.generation + 1)
                emit(file_change(REALM, f"{realm.generation + 1}-{number}"))
        found = reader.result(PATIENCE)
    assert [path for path, _ in found] == [str(number) for number in range(count)]
    assert all(ahead >= 0 for _, ahead in found), "a reader found an older generation"


def test_the_legacy_channel_is_used_only_if_the_setting_is_on(
    listening: Ear, settings: Any
) -> None:
    cleared = all_definitions_cleared()
    with transaction.atomic():
        emit(cleared, A)
    assert listening.heard() == [
        (DEFINITION_CACHE_INVALIDATED, cleared.payload),
        (A.channel, A.payload),
    ]
    settings.REALM_LEGACY_CHANNELS = True
    with transaction.atomic():
        emit(cleared, A)
    assert listening.heard() == [
        (DEFINITION_CACHE_INVALIDATED, cleared.payload),
        (A.channel, A.payload),
        (MODULE_CACHE_INVALIDATED, cleared.payload),
    ]


def test_notify_all_file_changes_tells_peers_and_not_the_local_board(
    listening: Ear,
) -> None:
    stamp = local_board().stamp(REALM_SLOTS)
    with transaction.atomic():
        notify_all_file_changes(REALM)
    assert listening.heard() == [(REALM_FILE_CHANGES, f"{REALM}:*")]
    assert local_board().unchanged(REALM_SLOTS, stamp)


def test_a_local_bump_waits_for_the_commit_and_notifies_nobody(listening: Ear) -> None:
    board = local_board()
    stamp = board.stamp(A_SLOTS)
    with transaction.atomic():
        bump_at_commit([path_key(f"{REALM}a.ts")])
        assert board.unchanged(A_SLOTS, stamp)
    assert not board.unchanged(A_SLOTS, stamp)
    assert listening.heard() == []


def test_a_local_clear_notifies_nobody_and_a_broadcast_notifies_peers(
    listening: Ear, source: Realm
) -> None:
    board, slots = local_board(), Slots([realm_key(source.url)])
    stamp = board.stamp(slots)
    listening.heard()
    source.clear_local_source_caches()
    assert not board.unchanged(slots, stamp)
    assert listening.heard() == []

    with pytest.raises(TransactionManagementError):
        source.clear_local_source_caches_and_broadcast()
    stamp = board.stamp(slots)
    with transaction.atomic():
        source.clear_local_source_caches_and_broadcast()
    assert not board.unchanged(slots, stamp)
    assert listening.heard() == [(REALM_FILE_CHANGES, f"{source.url}:*")]


# --- Files -------------------------------------------------------------------------------------


@pytest.fixture
def quiet(source: Realm, listening: Ear) -> Ear:
    """Returns a listening connection that has already received the notifications of the source
    realm's creation."""
    listening.heard()
    return listening


def paths(heard: list[tuple[str, str]], realm: Realm) -> list[str]:
    """Returns the paths that the notifications name. Asserts that all notifications are about files
    of this realm or invalidated definitions."""
    told = [each for each in heard if each[0] != DEFINITION_CACHE_INVALIDATED]
    assert {channel for channel, _ in told} <= {REALM_FILE_CHANGES}
    assert all(payload.startswith(f"{realm.url}:") for _, payload in told)
    return [payload.removeprefix(f"{realm.url}:") for _, payload in told]


def test_a_written_file_is_announced_once_whether_it_is_new_or_changed(
    source: Realm, quiet: Ear
) -> None:
    make.write(source, new__ts=b"export {};")
    assert paths(quiet.heard(), source) == ["new.ts"]
    make.write(source, new__ts=b"export const n = 1;")
    assert paths(quiet.heard(), source) == ["new.ts"]


def test_a_write_of_the_same_content_is_not_announced(source: Realm, quiet: Ear) -> None:
    make.write_paths(source, {"post.tsx": make.SITE["post.tsx"]})
    assert quiet.heard() == []


def test_a_deleted_file_is_announced(source: Realm, quiet: Ear) -> None:
    make.remove(source, "ada.json", "dot.png")
    assert sorted(paths(quiet.heard(), source)) == ["ada.json", "dot.png"]


def test_a_write_moves_the_local_board_without_any_sidecar(source: Realm) -> None:
    board, written = local_board(), Slots([path_key(f"{source.url}new.ts")])
    other = Slots([path_key(f"{source.url}post.tsx"), realm_key(source.url)])
    stamps = board.stamp(written), board.stamp(other)
    make.write(source, new__ts=b"export {};")
    assert not board.unchanged(written, stamps[0])
    assert board.unchanged(other, stamps[1])


def test_files_closed_and_opened_by_plain_sql_are_announced_too(source: Realm, quiet: Ear) -> None:
    with connect() as hand:
        hand.execute(
            "UPDATE realms_fileversion SET until_generation = 99"
            " WHERE realm_id = %s AND path = 'post.tsx'",
            [source.pk],
        )
        assert paths(quiet.heard(), source) == ["post.tsx"]
        hand.execute(
            "INSERT INTO realms_fileversion"
            " (realm_id, path, sha256, size, created_at, modified_at, from_generation)"
            " SELECT realm_id, 'post.tsx', sha256, size, now(), now(), 99"
            " FROM realms_fileversion WHERE realm_id = %s AND path = 'post.tsx'",
            [source.pk],
        )
        assert paths(quiet.heard(), source) == ["post.tsx"]


def test_a_statement_names_up_to_32_paths_and_else_sends_a_wildcard(
    source: Realm, quiet: Ear
) -> None:
    few = {f"{n}.txt": b"few" for n in range(MAX_PATHS_PER_STATEMENT)}
    make.write_paths(source, few)
    assert sorted(paths(quiet.heard(), source)) == sorted(few)
    many = {f"{n}.txt": b"many" for n in range(MAX_PATHS_PER_STATEMENT + 1)}
    make.write_paths(source, many)
    # The write ran two statements. One statement closed 32 old file versions, and announced their
    # paths. The other statement inserted 33 new versions. Because 33 is more than the limit, this
    # statement announced a wildcard.
    assert sorted(paths(quiet.heard(), source)) == sorted([*few, "*"])
    make.remove(source, *many)
    assert paths(quiet.heard(), source) == ["*"]


def test_a_write_of_many_paths_moves_the_realms_key_on_the_board(source: Realm) -> None:
    board, slots = local_board(), Slots([realm_key(source.url)])
    stamp = board.stamp(slots)
    make.write_paths(source, {f"{n}.txt": b"" for n in range(MAX_PATHS_PER_STATEMENT)})
    assert board.unchanged(slots, stamp)
    make.write_paths(source, {f"{n}.md": b"" for n in range(MAX_PATHS_PER_STATEMENT + 1)})
    assert not board.unchanged(slots, stamp)


def test_a_path_too_long_to_send_is_announced_as_a_wildcard(source: Realm, quiet: Ear) -> None:
    with connect() as hand:
        hand.execute(
            "INSERT INTO realms_fileversion"
            " (realm_id, path, sha256, size, created_at, modified_at, from_generation)"
            " SELECT realm_id, repeat('€', 2400), sha256, size, now(), now(), 99"
            " FROM realms_fileversion WHERE realm_id = %s AND path = 'post.tsx'",
            [source.pk],
        )
    assert paths(quiet.heard(), source) == ["*"]


def test_a_statement_on_two_realms_announces_each_path_with_its_realm(
    source: Realm, owner: Any, quiet: Ear
) -> None:
    other = make.source(REALM, owner, {"post.tsx": b"export {};"})
    quiet.heard()
    with connect() as hand:
        hand.execute("UPDATE realms_fileversion SET until_generation = 99 WHERE path = 'post.tsx'")
    assert sorted(quiet.heard()) == sorted(
        (REALM_FILE_CHANGES, f"{realm.url}:post.tsx") for realm in (source, other)
    )


def test_a_statement_that_touches_no_file_announces_nothing(quiet: Ear) -> None:
    with connect() as hand:
        hand.execute("UPDATE realms_fileversion SET until_generation = 99 WHERE path = 'nowhere'")
    assert quiet.heard() == []


# --- Realms and permissions --------------------------------------------------------------------


def test_a_realm_is_announced_when_it_appears_changes_and_disappears(listening: Ear) -> None:
    upsert = (REALM_REGISTRY, f"upsert:{REALM}")
    realm = Realm.objects.create(url=REALM, kind=Realm.Kind.SOURCE)
    assert listening.heard() == [upsert]
    Realm.objects.filter(pk=realm.pk).update(publishable=True)
    assert listening.heard() == [upsert]
    with connect() as hand:
        hand.execute("UPDATE realms_realm SET last_published_at = now() WHERE id = %s", [realm.pk])
    assert listening.heard() == [upsert]
    realm.delete()
    assert listening.heard() == [(REALM_REGISTRY, f"delete:{REALM}")]


def test_a_new_generation_alone_is_no_registry_change(source: Realm, quiet: Ear) -> None:
    Realm.objects.filter(pk=source.pk).update(generation=source.generation + 1)
    assert quiet.heard() == []


def test_a_realm_saved_without_changes_is_not_announced(source: Realm, quiet: Ear) -> None:
    source.save()
    assert quiet.heard() == []


def test_a_permission_change_is_announced_as_a_change_of_its_realm(
    source: Realm, quiet: Ear
) -> None:
    upsert = (REALM_REGISTRY, f"upsert:{source.url}")
    given = RealmPermission.objects.create(realm=source, account=make.user("bob"), read=True)
    assert quiet.heard() == [upsert]
    RealmPermission.objects.filter(pk=given.pk).update(write=True)
    assert quiet.heard() == [upsert]
    RealmPermission.objects.filter(account__username="bob").delete()
    assert quiet.heard() == [upsert]
    with connect() as hand:
        hand.execute("DELETE FROM realms_realmpermission WHERE audience = %s", [EVERYONE])
    assert upsert in quiet.heard()
