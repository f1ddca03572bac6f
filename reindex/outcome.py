"""What a job came to, in words, for whoever reads a terminal or the admin."""

from collections.abc import Iterable
from typing import Any

from reindex.models import ReindexJob

#: As much of one message as a line shows. Unit: characters.
MAX_SHOWN = 400


def outcome(job: ReindexJob) -> list[str]:
    """Lines: figures, the errors by kind, the replicas that were left out, why it failed."""
    summary = job.summary
    cards = "card" if job.rendered == 1 else "cards"
    lines = [
        f"{job.rendered} {cards} rendered in {job.seconds or 0:.1f} s, "
        f"{job.carried} carried over, {job.errors} with errors"
    ]
    lines += [_kind(kind) for kind in summary.get("errors", ())]
    if summary.get("furtherKinds"):
        lines.append(f"  and {summary['furtherKinds']} further kinds of error")
    for address, why in summary.get("avoided", {}).items():
        lines.append(f"  replica {address} was left out: {_shown(why)}")
    if job.error:
        lines.append(f"  {_shown(job.error)}")
    return lines


def _kind(kind: dict[str, Any]) -> str:
    """One kind of error and the first cards that have it."""
    said = _because([kind["message"], *kind.get("causes", ())])
    where = f" ({kind['module']})" if kind["module"] else ""
    cards = ", ".join(kind["cards"]) + (", …" if kind["count"] > len(kind["cards"]) else "")
    return f"  {kind['count']} × {kind['title']}: {said}{where}: {_shown(cards)}"


def _because(chain: Iterable[str]) -> str:
    return ", because: ".join(_shown(link) for link in chain)


def _shown(text: object) -> str:
    """One line of it: card code may throw what would move a terminal's cursor, or fill a screen."""
    printable = "".join(each if each.isprintable() else " " for each in str(text))
    line = " ".join(printable.split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]} …"
