"""Describes the conditions of replicas, of realms on replicas and of pages, in sentences for an
operator.

Each condition says what is wrong, what visitors notice, and what to do. Pure functions compute
conditions from the reports in the database. The admin, `manage.py generations` and
`manage.py doctor` show the same sentences.

A replica is a web service and its sidecar, the process `manage.py listen_file_changes`, which
writes the replica's reports. A replica's watermark is the time before which the replica has applied
every change. The staleness bound (REALM_STALENESS_BOUND) says for how long after a change a replica
may still serve the old bytes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from notifications.listener import State
from notifications.models import REPORT_FRESH, Replica
from notifications.reporter import REPORT_SECONDS
from realms.models import Realm
from reindex.models import IndexHead, ReindexJob

#: A replica is late if its watermark is older than the staleness bound plus this slack. The slack
#: is needed because a sidecar reports only every REPORT_SECONDS.
SLACK = timedelta(seconds=2 * REPORT_SECONDS)


class Severity(IntEnum):
    """How bad a condition is. A larger number is worse."""

    FINE = 0
    WARNING = 1
    PROBLEM = 2


@dataclass(frozen=True)
class Condition:
    """A condition and the words that describe it. `name` is short enough for a badge. `means` says
    what is wrong, `visitors` says what visitors notice, and `todo` says what the operator should
    do."""

    severity: Severity
    name: str
    means: str
    visitors: str = ""
    todo: str = ""

    @property
    def fine(self) -> bool:
        """Whether the operator has nothing to do."""
        return self.severity is Severity.FINE

    def __str__(self) -> str:
        return " ".join(filter(None, (self.means, self.visitors, self.todo)))


_SLOWER = (
    "Visitors get correct answers from this replica, but slower: it bypasses its caches and reads "
    "the database for every request."
)


def of_replica(replica: Replica, now: datetime, bound: timedelta) -> Condition:
    """Returns a replica's condition by its last report. `bound` is the staleness bound."""
    name, silent = replica.name, now - replica.reported_at
    if silent >= REPORT_FRESH:
        return Condition(
            Severity.PROBLEM,
            "silent",
            f"{name} has not reported for {duration(silent)}: its sidecar does not run, or can't "
            "reach the database.",
            _SLOWER + " If the whole host is down, this replica gives no answers.",
            f"Restart listen_file_changes on {name}, and read its log.",
        )
    if not replica.web_answers:
        return Condition(
            Severity.PROBLEM,
            "no web service",
            f"The web service of {name} does not answer at {replica.address}.",
            "Visitors get no answers; the load balancer should send them to other replicas.",
            f"Restart the web service on {name}, or correct REALM_REPLICA_ADDRESS on {name}.",
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
            f"{name} has {age}: the pings of its sidecar to itself do not come back in time.",
            _SLOWER,
            f"Check the load of the database and of {name}. If {name} stays late, restart "
            f"listen_file_changes on {name}.",
        )
    if replica.missed:
        return Condition(
            Severity.WARNING,
            "missed changes",
            f"{name} found {replica.missed} changes that no notification had announced.",
            "Visitors may have seen old files until the sidecar found the changes.",
            "Check whether rows were changed without a trigger, by restoring a table or under "
            f"session_replication_role. Restarting listen_file_changes on {name} resets the count.",
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
        f"The sidecar of {name} is {replica.state}: it has no working LISTEN connection.",
        _SLOWER,
        f"On {name}, check that LISTEN_DATABASE_URL connects to the primary server of "
        "DATABASE_URL without a pooler; read the log of listen_file_changes.",
    )


def of_cell(replica: str, behind: int, since: timedelta, bound: timedelta) -> Condition:
    """Returns the condition of one realm on one replica. The replica has not yet reported that it
    has applied the realm's last `behind` generations. `since` is the time that has passed since the
    first of these generations was committed."""
    if behind == 0:
        return Condition(Severity.FINE, "current", f"{replica} has applied the last change.")
    generations = "1 generation" if behind == 1 else f"{behind} generations"
    means = f"{replica} has not reported {generations} of this realm for {duration(since)}."
    if since <= bound + SLACK:
        return Condition(Severity.FINE, f"{behind} behind", f"{means} The report is due soon.")
    return Condition(
        Severity.PROBLEM,
        f"{behind} behind",
        means,
        "Visitors still get the new files: after the staleness bound, the replica bypasses every "
        "cache that may be outdated.",
        f"Clear the realm. If {replica} stays behind, restart listen_file_changes on {replica}.",
    )


#: If a job has waited for a worker for longer than this, workers are missing or overloaded.
WAITS_FOR_WORKER = timedelta(seconds=30)


def of_pages(
    realm: Realm, head: IndexHead | None, job: ReindexJob | None, now: datetime
) -> Condition:
    """Returns the condition of a realm's rendered pages. `head` says which generation of the pages
    visitors see, and is None if the realm has no pages yet. `job` is the realm's newest job if that
    job is queued, rendering or failed, else None."""
    shown = head.generation if head else 0
    if job is not None and job.status == ReindexJob.Status.FAILED:
        return Condition(
            Severity.PROBLEM,
            "failed",
            f"The last rendering of {realm.url} failed: {job.error or 'no reason is recorded'}.",
            f"Visitors see the pages of generation {shown}."
            if shown
            else "The realm has no pages yet.",
            "Fix the cause of the error, then retry the job. The workers also retry the job by "
            "themselves, one minute after each failure.",
        )
    if realm.kind != Realm.Kind.PUBLISHED or shown >= realm.generation:
        return Condition(Severity.FINE, "shown", f"Visitors see no outdated pages of {realm.url}.")
    old = f"the pages of generation {shown}" if shown else "a notice that the site isn't ready yet"
    visitors = f"Visitors see {old}. The realm's files and modules are current."
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
            f"The job of {realm.url} has waited for {duration(waits)} for a worker.",
            visitors,
            "Start Celery workers, or add more. The admin's page Work lists all waiting jobs.",
        )
    return Condition(
        Severity.FINE, job.status, f"The pages of {realm.url} are being rendered.", visitors
    )


def duration(span: timedelta) -> str:
    """Returns a time span as a rounded text, for example `4 s`, `3 min`, `2 h` or `5 days`."""
    seconds = max(span.total_seconds(), 0)
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def summary(conditions: list[Condition], replicas: int, at: datetime) -> str:
    """Returns the text above the table of realms and replicas. The text says whether anything is
    wrong, and describes the worst condition."""
    wrong = [each for each in conditions if not each.fine]
    if not replicas:
        return "No replica has reported for a day. Start a web service and listen_file_changes."
    if not wrong:
        who = "The replica is" if replicas == 1 else f"All {replicas} replicas are"
        return f"{who} current as of {at:%H:%M:%S} UTC."
    worst = max(wrong, key=lambda each: each.severity)
    more = f" And {len(wrong) - 1} more." if len(wrong) > 1 else ""
    return f"{worst.means} {worst.todo}{more}"
