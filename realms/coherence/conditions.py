"""What can be wrong with a replica, a realm's pages or the workers, as sentences for an operator.

Each condition says what it is, what visitors notice, and what to do. These are pure functions of
the reports in the database; the admin, the commands and the alerts use the same sentences.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from notifications.listener import State
from notifications.models import REPORT_FRESH, Replica
from notifications.reporter import REPORT_SECONDS
from realms.models import Realm
from reindex.models import IndexHead, ReindexJob

#: A replica is late if its watermark is older than the staleness bound and this. Reports come once
#: in REPORT_SECONDS.
SLACK = timedelta(seconds=2 * REPORT_SECONDS)


class Severity(IntEnum):
    """How bad a condition is; the worst comes first in every list."""

    FINE = 0
    WARNING = 1
    PROBLEM = 2


@dataclass(frozen=True)
class Condition:
    """A state in words. `name` is one or two words for a badge."""

    severity: Severity
    name: str
    means: str
    visitors: str = ""
    todo: str = ""

    @property
    def fine(self) -> bool:
        """Whether nobody has to do anything."""
        return self.severity is Severity.FINE

    def __str__(self) -> str:
        return " ".join(filter(None, (self.means, self.visitors, self.todo)))


_SLOWER = (
    "Visitors get correct answers from it, but slower: its caches are bypassed and it reads the "
    "database for every request."
)


def of_replica(replica: Replica, now: datetime, bound: timedelta) -> Condition:
    """The condition of a replica by its last report. `bound` is the staleness bound."""
    name, silent = replica.name, now - replica.reported_at
    if silent >= REPORT_FRESH:
        return Condition(
            Severity.PROBLEM,
            "silent",
            f"{name} has not reported for {duration(silent)}: its sidecar does not run, or can't "
            "reach the database.",
            _SLOWER + " If the whole host is down, they get none from it.",
            f"Restart listen_file_changes on {name}, and read its log.",
        )
    if not replica.web_answers:
        return Condition(
            Severity.PROBLEM,
            "no web service",
            f"The web service of {name} does not answer at {replica.address}.",
            "Visitors get no answers from it; the load balancer should send them to the others.",
            f"Restart the web service on {name}. If it runs, check REALM_REPLICA_ADDRESS there.",
        )
    if replica.state != State.LIVE:
        return _not_live(replica)
    watermark = replica.watermark_at
    if watermark is None or now - watermark > bound + SLACK:
        age = (
            "no watermark" if watermark is None else f"a watermark {duration(now - watermark)} old"
        )
        return Condition(
            Severity.PROBLEM,
            "late",
            f"{name} has {age}: its own pings through the database don't come back in time.",
            _SLOWER,
            f"See how busy the database and {name} are; restart listen_file_changes on {name} if "
            "it stays.",
        )
    if replica.missed:
        return Condition(
            Severity.WARNING,
            "missed changes",
            f"{name} found {replica.missed} changes that no notification had announced.",
            "Visitors may have seen old files for up to the comparison's interval.",
            "See whether rows were changed without the triggers (session_replication_role, a "
            f"restored table). The count starts again when listen_file_changes on {name} does.",
        )
    return Condition(Severity.FINE, "live", f"{name} is live: it has applied every change.")


def _not_live(replica: Replica) -> Condition:
    name = replica.name
    if replica.state == State.STOPPED:
        return Condition(
            Severity.PROBLEM,
            "stopped",
            f"The sidecar of {name} was stopped.",
            _SLOWER,
            f"Start listen_file_changes on {name}.",
        )
    return Condition(
        Severity.PROBLEM,
        replica.state,
        f"The sidecar of {name} is {replica.state}: it has no working connection that listens.",
        _SLOWER,
        f"On {name}, check that LISTEN_DATABASE_URL leads to the primary server of DATABASE_URL, "
        "and not through a pooler; read the log of listen_file_changes.",
    )


def of_cell(replica: str, behind: int, since: timedelta, bound: timedelta) -> Condition:
    """The condition of one realm on one replica that is `behind` by some generations, of which the
    first was committed `since` ago."""
    if behind == 0:
        return Condition(Severity.FINE, "current", f"{replica} has applied its last change.")
    generations = "1 generation" if behind == 1 else f"{behind} generations"
    means = f"{replica} has not reported {generations} of it, for {duration(since)}."
    if since <= bound + SLACK:
        return Condition(Severity.FINE, f"{behind} behind", f"{means} The report is on its way.")
    return Condition(
        Severity.PROBLEM,
        f"{behind} behind",
        means,
        "Visitors get the new files all the same: after the staleness bound, what is not known to "
        "be current is read from the database.",
        f"Clear the realm. If {replica} stays behind, restart listen_file_changes there.",
    )


#: A job that no worker takes for longer than this waits for a worker rather than for its turn.
WAITS_FOR_WORKER = timedelta(seconds=30)


def of_pages(
    realm: Realm, head: IndexHead | None, job: ReindexJob | None, now: datetime
) -> Condition:
    """The condition of a realm's rendered pages. `job` is its newest job, if it is live or
    failed."""
    shown = head.generation if head else 0
    if job is not None and job.status == ReindexJob.Status.FAILED:
        return Condition(
            Severity.PROBLEM,
            "failed",
            f"The last rendering of {realm.url} failed: {job.error or 'no reason is recorded'}.",
            f"Visitors see its pages of generation {shown}." if shown else "It has no pages yet.",
            "Mend what the error names, then retry the job; it is retried by itself every minute.",
        )
    if realm.kind != Realm.Kind.PUBLISHED or shown >= realm.generation:
        return Condition(Severity.FINE, "shown", f"The pages of {realm.url} are shown.")
    old = f"the pages of generation {shown}" if shown else "a page that asks for patience"
    visitors = f"Visitors see {old}; files and modules are new."
    if job is None:
        return Condition(
            Severity.PROBLEM,
            "not rendered",
            f"{realm.url} is at generation {realm.generation}, and no job renders its pages.",
            visitors,
            f"Run manage.py reindex_realm {realm.url}.",
        )
    waits = now - job.created_at
    if job.started_at is None and waits > WAITS_FOR_WORKER:
        return Condition(
            Severity.PROBLEM,
            "waits for a worker",
            f"The job of {realm.url} has waited for {duration(waits)} without a worker.",
            visitors,
            "Start Celery workers, or more of them; see the page Work.",
        )
    return Condition(
        Severity.FINE, job.status, f"The pages of {realm.url} are being rendered.", visitors
    )


def duration(span: timedelta) -> str:
    """A time span as a person would say it: `4 s`, `3 min`, `2 h`, `5 days`."""
    seconds = max(span.total_seconds(), 0)
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def summary(conditions: list[Condition], replicas: int, at: datetime) -> str:
    """The first line of every overview: whether anything is wrong, in words."""
    wrong = [each for each in conditions if not each.fine]
    if not replicas:
        return "No replica has reported for a day. Start a web service and listen_file_changes."
    if not wrong:
        who = "The replica is" if replicas == 1 else f"All {replicas} replicas are"
        return f"{who} current as of {at:%H:%M:%S} UTC."
    worst = max(wrong, key=lambda each: each.severity)
    more = f" And {len(wrong) - 1} more." if len(wrong) > 1 else ""
    return f"{worst.means} {worst.todo}{more}"
