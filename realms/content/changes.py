"""Describes the changes that a transaction makes to realms, and derives their consequences.

Code that changes a realm passes a `Change` to `raise_change` and doesn't know who receives the
`Change`. Pure functions compute from a `Change` which caches, definitions and jobs are affected. A
definition says what a module exports. A job renders a realm's pages.

`publishing/effects.py` updates the affected caches, definitions and jobs at the end of the
transaction, once for all changes. It updates all definitions before all jobs. So every transaction
locks their rows in this order, which prevents deadlocks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

from notifications.channels import (
    MAX_PATHS_PER_STATEMENT,
    Notification,
    all_files_changed,
    path_key,
    realm_changed,
    realm_key,
)
from realms.models import Realm


@dataclass(frozen=True)
class Change:
    """The change that a transaction makes to one realm. `generation` is the realm's generation
    after the change, or the last generation of a deleted realm.

    `paths` are the files that may have changed; None means all files. `shows_before` and
    `shows_after` are the URLs of the source realms that a published realm shows before and after a
    publish, a rollback or its removal. `readable_before` and `readable_after` say whether everyone
    may read the realm before and after the change. `readers_change` sets both values. The first
    publication of a realm sets only `readable_after`. Each of these four values is None if it isn't
    set. `rights` says whether the realm's permissions have changed. `by` is a human-readable
    description of what caused the change.
    """

    realm_url: str
    kind: str
    generation: int
    owner: str = ""
    paths: frozenset[str] | None = frozenset()
    shows_before: str | None = None
    shows_after: str | None = None
    readable_before: bool | None = None
    readable_after: bool | None = None
    exists_before: bool = True
    exists_after: bool = True
    rights: bool = False
    by: str = "change"

    @classmethod
    def of(cls, realm: Realm, **changed: Any) -> "Change":
        """Returns a change of `realm`, with the realm's current kind, generation and owner."""
        now = {"kind": realm.kind, "generation": realm.generation, "owner": realm.owner_key}
        return cls(realm.url, **{**now, **changed})

    @property
    def appeared(self) -> bool:
        """Whether everyone may read the realm after the change but not before the change."""
        before = self.exists_before and self.readable_before is not False
        return self.readable_after is True and not before

    @property
    def pages_change(self) -> bool:
        """Whether the pages of the realm itself may have changed, because its files may have
        changed."""
        return self.paths is None or bool(self.paths)


# --- Consequences of a change --------------------------------------------------------------------


def keys_moved_here(change: Change) -> set[str]:
    """Returns the board keys that a change affects. At commit, this process writes a new number
    into each key's slot on its replica's board (`notifications/board.py`). This makes stale all
    cached answers that depend on the key. Database triggers and `notifications_of` announce the
    change to all replicas."""
    moves = change.rights or change.exists_before != change.exists_after
    if moves or change.paths is None or len(change.paths) > MAX_PATHS_PER_STATEMENT:
        return {realm_key(change.realm_url)}
    return {path_key(change.realm_url + path) for path in change.paths}


def notifications_of(change: Change) -> list[Notification]:
    """Returns the notifications about a change, except the notifications that database triggers
    send. If all files of the realm may have changed, one notification says so. There is another
    notification about each source realm in `moved`, because links to this source realm may now lead
    to another URL."""
    files = [all_files_changed(change.realm_url)] if change.paths is None else []
    return files + [realm_changed(url) for url in sorted(moved(change))]


def moved(change: Change) -> set[str]:
    """Returns the URLs of the source realms that the changed realm starts or stops showing. The
    published URLs of these source realms may change."""
    if change.shows_before == change.shows_after:
        return set()
    return {url for url in (change.shows_before, change.shows_after) if url is not None}


def drops_all_definitions(change: Change) -> bool:
    """Returns whether the change invalidates all definitions that were built from the realm. Other
    changes invalidate only the definitions that were built from `paths`."""
    return change.rights or change.paths is None


def is_draft(change: Change) -> bool:
    """Returns whether the changed realm's pages are drafts. The pages of every source realm are
    drafts. A draft is rendered with a delay, so that one rendering includes several changes."""
    return change.kind == Realm.Kind.SOURCE


def needs_job(change: Change, index_sources: bool) -> bool:
    """Returns whether the changed realm must be rendered again. Source realms are rendered only if
    `index_sources` is true."""
    has_pages = change.kind == Realm.Kind.PUBLISHED or (is_draft(change) and index_sources)
    return has_pages and change.exists_after and change.pages_change


def changed_for_readers(change: Change) -> set[str]:
    """Returns the URLs of realms that look different to other realms after the change. These are
    the source realms in `moved`. The changed realm is one of them if its pages may have changed, or
    if the change ends everyone's access to this realm. Other realms that read or link to a realm in
    the result must be rendered again."""
    closed = change.readable_after is False and change.readable_before is True
    own = {change.realm_url} if change.pages_change or closed else set()
    return own | moved(change)


# --- Raising -------------------------------------------------------------------------------------

Receiver: TypeAlias = Callable[[Sequence[Change]], None]
_receivers: list[Receiver] = []
_raised: ContextVar[list[Change] | None] = ContextVar("raised", default=None)


def connect(receiver: Receiver) -> None:
    """Registers a function that receives all changes of a transaction just before the transaction
    ends (`dispatch_at_end`)."""
    if receiver not in _receivers:
        _receivers.append(receiver)


def raise_change(*changes: Change) -> None:
    """Collects changes, which the receivers get at the end of the current `dispatch_at_end` block.
    Outside such a block, passes the changes to the receivers at once. The caller holds the locks of
    the changed realms."""
    with dispatch_at_end():
        _collected().extend(changes)


def _collected() -> list[Change]:
    raised = _raised.get()
    assert raised is not None
    return raised


@contextmanager
def dispatch_at_end() -> Iterator[None]:
    """Passes all changes that are raised inside the `with` block to the receivers at the end of the
    block. If such blocks are nested, the receivers get the changes at the end of the outermost
    block. The caller's transaction must end after the outermost block."""
    if _raised.get() is not None:
        yield
        return
    token = _raised.set([])
    try:
        yield
        changes = tuple(_collected())
    finally:
        _raised.reset(token)
    if changes:
        for receiver in _receivers:
            receiver(changes)
