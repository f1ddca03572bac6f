"""What changed: one value for each realm that a transaction changes, and what follows from it.

Whoever changes a realm raises a `Change` and knows nothing of who has to hear of it. Caches,
definitions and jobs are derived from the value by the pure functions here, and `effects` sees to
them: once for all changes of a transaction, at its end, so that what it locks is locked in one
order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

from notifications.channels import (
    MAX_PATHS_PER_STATEMENT,
    REGISTRY_KEY,
    Notification,
    all_files_changed,
    path_key,
    realm_changed,
    realm_key,
)
from realms.models import Realm


@dataclass(frozen=True)
class Change:
    """What a transaction changes of one realm, which has this `generation` from then on, or had it
    last.

    `paths` are the files that may be others than before; None stands for all. `shows_*` are the
    URLs of the source realm that a published realm shows, `readable_*` whether everyone may read
    the realm, None where that stays as it is. `rights` tells that somebody's rights have changed.
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
    stands_before: bool = True
    stands_after: bool = True
    rights: bool = False

    @classmethod
    def of(cls, realm: Realm, **changed: Any) -> "Change":
        """A change of a realm as it is now."""
        now = {"kind": realm.kind, "generation": realm.generation, "owner": realm.owner_key}
        return cls(realm.url, **{**now, **changed})

    @property
    def appeared(self) -> bool:
        """Whether everyone may read the realm now and could not, or it stands now and didn't."""
        before = self.stands_before and self.readable_before is not False
        return self.readable_after is True and not before

    @property
    def pages_change(self) -> bool:
        """Whether the realm's own pages may be others than before."""
        return self.paths is None or bool(self.paths)


# --- What follows from a change ------------------------------------------------------------------


def board_keys(change: Change) -> set[str]:
    """What moves on this replica's board: peers hear of it by the triggers of the tables."""
    if change.rights or change.stands_before != change.stands_after:
        return {realm_key(change.realm_url), REGISTRY_KEY}
    paths = change.paths or frozenset()
    if len(paths) > MAX_PATHS_PER_STATEMENT:
        return {realm_key(change.realm_url)}
    return {path_key(change.realm_url + path) for path in paths}


def notifications(change: Change) -> list[Notification]:
    """What every replica is told besides. A source realm leads to where it is published."""
    files = [all_files_changed(change.realm_url)] if change.paths is None else []
    return files + [realm_changed(url) for url in sorted(moved(change))]


def moved(change: Change) -> set[str]:
    """The source realms that are published elsewhere than before."""
    if change.shows_before == change.shows_after:
        return set()
    return {url for url in (change.shows_before, change.shows_after) if url is not None}


def cleared(change: Change) -> bool:
    """Whether no definition that was made from the realm holds any more. Otherwise those of its
    `paths` don't."""
    return change.rights or change.paths is None


def is_draft(change: Change) -> bool:
    """Whether the realm's pages are those of a draft, which wait a moment for more to change."""
    return change.kind == Realm.Kind.SOURCE


def is_due(change: Change, index_sources: bool) -> bool:
    """Whether the realm itself is owed a job; source realms may not be indexed."""
    has_pages = change.kind == Realm.Kind.PUBLISHED or (is_draft(change) and index_sources)
    return has_pages and change.stands_after and change.pages_change


def read_anew(change: Change) -> set[str]:
    """The realms whose readers are owed jobs: what they read, or where links lead, has changed."""
    shut = change.readable_after is False and change.readable_before is True
    own = {change.realm_url} if change.pages_change or shut else set()
    return own | moved(change)


# --- Raising -------------------------------------------------------------------------------------

Receiver: TypeAlias = Callable[[Sequence[Change]], None]
_receivers: list[Receiver] = []
_raised: ContextVar[list[Change] | None] = ContextVar("raised", default=None)


def connect(receiver: Receiver) -> None:
    """Has a function called with the changes of each transaction, at its end and within it."""
    if receiver not in _receivers:
        _receivers.append(receiver)


def raise_change(*changes: Change) -> None:
    """Tells that realms change with the caller's transaction, whose locks on them it holds."""
    with carried_out():
        _collected().extend(changes)


def _collected() -> list[Change]:
    raised = _raised.get()
    assert raised is not None
    return raised


@contextmanager
def carried_out() -> Iterator[None]:
    """Sees to everything that is raised within, at the end of the outermost such block. The
    caller's transaction ends after that."""
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
