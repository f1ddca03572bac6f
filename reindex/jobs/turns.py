"""Chooses the piece of work that a worker does next. A piece is a job to plan, a batch of a job's
cards to render, or a module whose definitions have to be built.

Owners of realms take turns. A draft is a job for a source realm, where an author edits files. These
rules order the pieces, the most important rule first:

- The owner for whom the fewest workers work comes first. An owner's second piece is ordered as if a
  worker were already working on the owner's first piece, and so on.
- Drafts and definitions that have waited for less than PATIENCE come last.
- The owner who has used the least worker time lately comes first.
- Published realms come before drafts and definitions.
- The oldest piece comes first.

Among the pieces of one owner, published realms always come before drafts and definitions.

With these rules, no owner waits for another owner's whole queue, but only for the pieces that
workers have leased. A batch may be long. If an owner with fewer workers waits, a worker stops after
SLICE_SECONDS, and the unrendered cards of its batch become new batches (`Turn`).
"""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from reindex import sql
from reindex.jobs import batches, lifecycle, wanted
from reindex.jobs.messages import send_when_due
from reindex.models import ReindexBatch, ReindexJob, WantedDefinitions

#: For this long, drafts and definitions come last (see the second rule above), and don't end a turn
#: in which a worker works on a published realm.
PATIENCE = timedelta(seconds=10)
#: After each half-life, the worker time that an owner has used counts half as much.
HALF_LIFE = timedelta(seconds=60)
#: A turn lasts at least this long, even if other owners wait, unless the work is done earlier.
#: Starting a prerenderer (the process that renders cards) takes almost a second, so a shorter turn
#: would render hardly any cards.
SLICE_SECONDS = 2.0
#: Work that has waited for less than this doesn't end a worker's turn, because an idle worker will
#: probably take the work.
HARDLY_WAITED = timedelta(milliseconds=100)
#: The minimum time between two checks whether other owners wait.
LOOK_SECONDS = 0.5
#: How many pieces `take` tries to lease before it gives up.
MANY = 16

Piece = ReindexJob | ReindexBatch | WantedDefinitions
#: The kinds of pieces. The kind `plan` means a job to plan.
KINDS = ("plan", "batch", "definitions")


@dataclass
class Turn:
    """The time that a worker spends on one piece of work. If the piece is a job, the worker may
    render the job's first batch in the same turn."""

    owner: str
    #: Whether the piece is part of a draft, or builds definitions. Such pieces come after published
    #: realms.
    later: bool
    _began: float = field(default_factory=time.monotonic)
    _looked: float = 0

    def is_over(self) -> bool:
        """Returns whether the turn has lasted SLICE_SECONDS and an owner with fewer workers waits.
        Asks the database only if LOOK_SECONDS have passed since the last query, and otherwise
        returns False."""
        now = time.monotonic()
        if now - self._began < SLICE_SECONDS or now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        return others_wait(self.owner, later=self.later)

    def end(self) -> None:
        """Adds the turn's duration to the worker time that the owner has used."""
        add_usage(self.owner, time.monotonic() - self._began)


def take() -> Piece | None:
    """Leases the next piece of work and returns the piece. Tries the first MANY pieces. Returns
    None if no work waits, or if other workers have leased all these pieces in the meantime. If a
    job's message was delivered before the job was due, sends another message (`send_when_due`)."""
    with connection.cursor() as cursor:
        cursor.execute(sql.PIECES_IN_TURN, _named())
        line = cursor.fetchall()
    if not line or any(early for _, _, early in line):
        send_when_due()
    for kind, key, _ in line:
        # If another worker has leased the piece meanwhile, try the next piece.
        piece = _lease(kind, key)
        if piece is not None:
            return piece
    return None


def others_wait(owner: str, *, later: bool) -> bool:
    """Returns whether there is an owner with waiting work who has fewer workers than `owner`. Work
    that has waited for less than HARDLY_WAITED doesn't count. `later` says whether the caller is
    working on a draft or on definitions. If `later` is false, drafts and definitions count only
    after they have waited for PATIENCE."""
    waited = timezone.now() - HARDLY_WAITED
    with connection.cursor() as cursor:
        cursor.execute(sql.OTHERS_WAIT, _named(owner=owner, later=later, waited=waited))
        row = cursor.fetchone()
    return bool(row and row[0])


def waiting(now: datetime) -> dict[str, tuple[int, datetime]]:
    """Returns, for each kind of piece, how many pieces wait for a worker, and when the oldest of
    these pieces became due."""
    with connection.cursor() as cursor:
        cursor.execute(sql.WAITING_PIECES, {"now": now})
        return {kind: (count, since) for kind, count, since in cursor.fetchall()}


def add_usage(owner: str, seconds: float) -> None:
    """Adds `seconds` to the worker time that an owner has used lately."""
    with connection.cursor() as cursor:
        cursor.execute(sql.ADD_USAGE, _named(owner=owner, seconds=seconds))


def _named(**more: Any) -> dict[str, Any]:
    now = timezone.now()
    half_life = HALF_LIFE.total_seconds()
    return {"now": now, "patient": now - PATIENCE, "half_life": half_life, "many": MANY, **more}


def _lease(kind: str, key: str) -> Piece | None:
    match kind:
        case "plan":
            return lifecycle.lease_job(int(key))
        case "batch":
            return batches.lease_batch(int(key))
    return wanted.lease_definitions(key)
