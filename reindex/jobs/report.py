"""Formats the outcome of a job as lines of text, for a terminal or the admin."""

from collections.abc import Iterable
from typing import Any

from reindex.models import ReindexJob
from reindex.reading.card_paths import file_of

#: The maximum length of each message, list of cards or reason within a line. Unit: characters.
MAX_SHOWN = 400


def outcome(job: ReindexJob) -> list[str]:
    """Returns a job's report, line by line: counts, kinds of errors and warnings of cards, replicas
    that failed, and the last error of the job itself. Equal errors of several cards are one kind.
    Files of the job's own realm are shown as paths."""
    summary = job.summary
    cards = "card" if job.rendered == 1 else "cards"
    lines = [
        f"{job.rendered} {cards} rendered in {job.seconds or 0:.1f} s, "
        f"{job.carried} carried over, {job.errors} with errors"
        + (f", {job.warnings} warnings" if job.warnings else "")
    ]
    kinds = [_error(kind) for kind in summary.get("errors", ())]
    if summary.get("furtherKinds"):
        kinds.append(f"  and {summary['furtherKinds']} further kinds of error")
    kinds += [_warning(kind) for kind in summary.get("warnings", ())]
    if summary.get("furtherWarnings"):
        kinds.append(f"  and {summary['furtherWarnings']} further kinds of warning")
    lines += [line.replace(job.realm_url, "") for line in kinds]
    for address, why in summary.get("avoided", {}).items():
        lines.append(f"  replica {address} failed: {_shown(why)}")
    if job.error:
        lines.append(f"  {_shown(job.error)}")
    return lines


def _error(kind: dict[str, Any]) -> str:
    """Returns the line for one kind of error. The line has the number of cards with the error, the
    error's title, message, causes and place, and the files of the first cards."""
    why = _because([kind["message"], *kind.get("causes", ())])
    return f"  {kind['count']} × {kind['title']}: {why}{_where(kind)}: {_cards(kind)}"


def _warning(kind: dict[str, Any]) -> str:
    times = f"{kind['count']} × " if kind["count"] > 1 else ""
    return f"  {times}warning: {_shown(kind['message'])}{_where(kind)}: {_cards(kind)}"


def _where(kind: dict[str, Any]) -> str:
    """Returns the file and line of an error or warning as text in parentheses."""
    if not kind.get("module"):
        return ""
    line = f", line {kind['line']}" if kind.get("line") else ""
    return f" ({kind['module']}{line})"


def _cards(kind: dict[str, Any]) -> str:
    """Returns the paths of the files of the first cards that have an error or warning, separated by
    commas. The text ends with `…` if more cards have the error or warning."""
    more = ", …" if kind["count"] > len(kind["cards"]) else ""
    return _shown(", ".join(file_of(card) for card in kind["cards"]) + more)


def _because(chain: Iterable[str]) -> str:
    """Joins a message and its causes into one text, without duplicates."""
    return ", because: ".join(dict.fromkeys(_shown(link) for link in chain))


def _shown(text: object) -> str:
    """Returns a text as one short, printable line. Card code chooses the text, so the text may be
    very long or contain control characters."""
    printable = "".join(each if each.isprintable() else " " for each in str(text))
    line = " ".join(printable.split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]} …"
