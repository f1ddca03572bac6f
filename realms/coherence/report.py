"""Reports the result of a verification as an exit status, as JSON, as a database row and as text
for a terminal.

A verification (`manage.py verify_coherence`) compares the answers of all replicas with the
database. A wrong answer is a violation only if the replica still answers wrongly after the grace
period (`--grace`).
"""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from realms.coherence.rules import SHARES, nines, share_text
from realms.models import CoherenceReport

#: How long the database keeps reports.
KEPT = timedelta(days=90)
#: How many violations the terminal's text shows. The JSON report and the report's database row
#: contain all violations.
SHOWN = 20

COHERENT, VIOLATED, UNREACHABLE = 0, 1, 2


@dataclass(frozen=True)
class Violation:
    """An answer that was still wrong after the grace period, or a change that a replica did not
    serve within the grace period."""

    replica: str
    worker: str
    realm: str
    path: str
    variant: str
    expected_generation: int | None
    found_generation: int | None
    why: str


@dataclass
class Outcome:
    """The result of one run of the verifier. The durations are in seconds."""

    grace: float
    replicas: list[str]
    #: The replicas that were shut down: the last report of their sidecar is over 30 s old and has
    #: the state `stopped`.
    stopped: set[str] = field(default_factory=set)
    started_at: datetime = field(default_factory=timezone.now)
    seconds: float = 0.0
    samples: int = 0
    changes: int = 0
    within: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))
    slowest: float | None = None
    violations: list[Violation] = field(default_factory=list)
    #: The replicas that did not answer during a whole grace period, each with the reason.
    silent: dict[str, str] = field(default_factory=dict)
    #: The URLs at which no answers could be compared, each with the reason.
    unchecked: dict[str, str] = field(default_factory=dict)

    def violation(self, found: Violation) -> None:
        """Adds a violation, unless this replica already has one for the same realm, path and
        variant."""
        where = (found.replica, found.realm, found.path, found.variant)
        if where not in {(v.replica, v.realm, v.path, v.variant) for v in self.violations}:
            self.violations.append(found)

    @property
    def unreachable(self) -> dict[str, str]:
        """The silent replicas that were not shut down, each with the reason for its silence."""
        return {name: why for name, why in self.silent.items() if name not in self.stopped}

    @property
    def retired(self) -> list[str]:
        """The silent replicas that were shut down and therefore need not answer."""
        return sorted(self.stopped & self.silent.keys())

    @property
    def exit_status(self) -> int:
        """1 if there are violations, else 2 if replicas were unreachable, else 0."""
        if self.violations:
            return VIOLATED
        return UNREACHABLE if self.unreachable else COHERENT

    def as_json(self) -> dict[str, Any]:
        """Returns the whole report as JSON data, for scripts."""
        return {
            "started_at": self.started_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "grace": self.grace,
            "exit_status": self.exit_status,
            "replicas": self.replicas,
            "retired": self.retired,
            "unreachable": self.unreachable,
            "samples": self.samples,
            "violations": [asdict(each) for each in self.violations],
            "unchecked": self.unchecked,
            "changes": self.changes,
            "slowest_seconds": None if self.slowest is None else round(self.slowest, 3),
            "seen_by_all": {
                f"{limit}s": {
                    "changes": self.within[limit],
                    "share": self.within[limit] / self.changes if self.changes else None,
                    "nines": nines(self.within[limit], self.changes) if self.changes else None,
                    "text": share_text(self.within[limit], self.changes),
                }
                for limit in SHARES
            },
        }

    def save(self) -> CoherenceReport:
        """Saves the report as a database row, which the admin and the metrics show. Also deletes
        the reports that are older than KEPT."""
        CoherenceReport.objects.filter(started_at__lt=timezone.now() - KEPT).delete()
        return CoherenceReport.objects.create(
            started_at=self.started_at,
            seconds=self.seconds,
            samples=self.samples,
            changes=self.changes,
            within_1s=self.within[1],
            within_10s=self.within[10],
            within_60s=self.within[60],
            violations=len(self.violations),
            unreachable=len(self.unreachable),
            details=self.as_json(),
        )

    def rendered(self) -> RenderableType:
        """Returns the report as text and tables for a terminal."""
        facts = Table(box=None, show_header=False, pad_edge=False)
        facts.add_row("replicas", Text(", ".join(self.replicas)))
        facts.add_row("answers compared", str(self.samples))
        facts.add_row("violations", str(len(self.violations)))
        facts.add_row("unreachable", str(len(self.unreachable)))
        facts.add_row("changes followed", str(self.changes))
        for limit in SHARES if self.changes else ():
            text = share_text(self.within[limit], self.changes)
            facts.add_row(f"seen by all replicas within {limit} s", text)
        if self.slowest is not None:
            facts.add_row("the slowest change took", f"{self.slowest:.2f} s")
        parts: list[RenderableType] = [facts]
        if self.violations:
            parts.append(self._violations())
        if len(self.violations) > SHOWN:
            parts.append(Text(f"… and {len(self.violations) - SHOWN} more; --json prints all"))
        for name, why in self.unreachable.items():
            parts.append(Text(f"replica {name} is unreachable: {why}"))
        for name in self.retired:
            parts.append(Text(f"replica {name} was shut down and does not answer"))
        for url, why in self.unchecked.items():
            parts.append(Text(f"not checked: {url}: {why}"))
        return Group(*parts)

    def _violations(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for name in ("replica", "realm", "path", "variant", "expected", "found", "what is wrong"):
            table.add_column(name)
        for each in self.violations[:SHOWN]:
            cells = (
                each.worker or each.replica, each.realm, each.path, each.variant,
                _generation(each.expected_generation), _generation(each.found_generation), each.why,
            )  # fmt: skip
            # A path may contain square brackets. In a plain string, rich would parse the brackets
            # as markup.
            table.add_row(*map(Text, cells))
        return table


def _generation(number: int | None) -> str:
    return "-" if number is None else str(number)
