"""Tests the conditions of replicas, of realms on replicas, and of pages. A condition tells an
operator in sentences what is wrong and what to do. The tests check these sentences, and from which
value on a condition counts as a problem.

The admin shows a table with a row for each realm and a column for each replica. So a condition of
one realm on one replica is called a cell.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifications.listener import State
from notifications.models import REPORT_FRESH, Replica
from realms.coherence.conditions import (
    SLACK,
    WAITS_FOR_WORKER,
    Condition,
    Severity,
    duration,
    of_cell,
    of_pages,
    of_replica,
    summary,
)
from realms.models import Realm
from reindex.models import IndexHead, ReindexJob

NOW = datetime(2026, 11, 28, 12, 30, 15, tzinfo=UTC)
BOUND = timedelta(seconds=2)
MOMENT = timedelta(milliseconds=1)
SITE = "http://ada.localhost:4201/"
SLOWER = "Visitors get correct answers from this replica, but slower"


def replica(**more: Any) -> Condition:
    """Returns the condition of a live replica. `more` contains the fields that differ from those of
    a live replica."""
    given = {"state": State.LIVE, "watermark_at": NOW, "reported_at": NOW, **more}
    return of_replica(Replica(name="web-1", address="http://10.0.0.1:8000", **given), NOW, BOUND)


def pages(kind: str = "published", generation: int = 3, shown: int = 0, **job: Any) -> Condition:
    """Returns the condition of a realm's pages. `job` contains the fields of the realm's last job.
    If `job` is empty, the realm has never had a job."""
    realm = Realm(url=SITE, kind=kind, generation=generation)
    head = IndexHead(realm_url=SITE, generation=shown) if shown else None
    last = ReindexJob(realm_url=SITE, **{"created_at": NOW, **job}) if job else None
    return of_pages(realm, head, last, NOW)


# --- Replicas ----------------------------------------------------------------------------------


def test_a_replica_that_has_applied_everything_is_live() -> None:
    found = replica()
    assert (found.severity, found.name, found.fine) == (Severity.FINE, "live", True)
    assert str(found) == "web-1 is live: it has applied every change."


def test_a_replica_is_silent_from_the_moment_its_report_is_too_old() -> None:
    assert replica(reported_at=NOW - REPORT_FRESH + MOMENT).name == "live"
    found = replica(reported_at=NOW - REPORT_FRESH, web_answers=False, state=State.STOPPED)
    assert (found.severity, found.name) == (Severity.PROBLEM, "silent")
    assert "web-1 has not reported for 30 s" in found.means
    assert found.visitors.startswith(SLOWER)
    assert found.visitors.endswith("If the whole host is down, this replica gives no answers.")
    assert found.todo == "Restart listen_file_changes on web-1, and read its log."


def test_a_silent_web_service_is_named_before_the_sidecars_state() -> None:
    found = replica(web_answers=False, state=State.STOPPED)
    assert (found.severity, found.name) == (Severity.PROBLEM, "no web service")
    assert found.means == "The web service of web-1 does not answer at http://10.0.0.1:8000."
    assert "should send them to other replicas" in found.visitors
    assert "correct REALM_REPLICA_ADDRESS" in found.todo


def test_the_operator_is_told_to_start_a_stopped_sidecar() -> None:
    found = replica(state=State.STOPPED)
    assert (found.severity, found.name) == (Severity.PROBLEM, "stopped")
    assert found.visitors.startswith(SLOWER)
    assert found.todo == "Start listen_file_changes on web-1."


@pytest.mark.parametrize("state", [State.CONNECTING, State.LISTENING])
def test_a_sidecar_without_a_connection_is_named_by_its_state(state: State) -> None:
    found = replica(state=state, watermark_at=None)
    assert (found.severity, found.name) == (Severity.PROBLEM, str(state))
    assert f"The sidecar of web-1 is {state}" in found.means
    assert found.visitors.startswith(SLOWER)
    assert "LISTEN_DATABASE_URL" in found.todo


def test_a_replica_is_late_once_its_watermark_exceeds_bound_and_slack() -> None:
    assert replica(watermark_at=NOW - BOUND - SLACK).name == "live"
    found = replica(watermark_at=NOW - BOUND - SLACK - MOMENT, missed=3)
    assert (found.severity, found.name) == (Severity.PROBLEM, "late")
    assert "web-1 has a watermark 4 s old" in found.means
    assert found.visitors.startswith(SLOWER)
    assert "restart listen_file_changes on web-1" in found.todo
    assert "web-1 has no watermark" in replica(watermark_at=None).means


def test_missed_changes_are_a_warning() -> None:
    found = replica(missed=2)
    assert (found.severity, found.name, found.fine) == (Severity.WARNING, "missed changes", False)
    assert "web-1 found 2 changes that no notification had announced" in found.means
    assert "old files" in found.visitors
    assert "session_replication_role" in found.todo


# --- Cells -------------------------------------------------------------------------------------


def test_a_current_cell_is_fine_even_if_its_report_is_old() -> None:
    found = of_cell("web-1", 0, timedelta(days=1), BOUND)
    assert (found.severity, found.name) == (Severity.FINE, "current")


def test_a_cell_is_a_problem_only_once_its_report_is_overdue() -> None:
    soon = of_cell("web-1", 1, BOUND + SLACK, BOUND)
    assert (soon.severity, soon.name) == (Severity.FINE, "1 behind")
    assert "web-1 has not reported 1 generation of this realm for 4 s." in soon.means
    assert soon.means.endswith("The report is due soon.")
    late = of_cell("web-1", 2, BOUND + SLACK + MOMENT, BOUND)
    assert (late.severity, late.name) == (Severity.PROBLEM, "2 behind")
    assert "2 generations" in late.means
    assert "Visitors still get the new files" in late.visitors
    assert late.todo.startswith("Clear the realm. If web-1 stays behind")


# --- Pages -------------------------------------------------------------------------------------


def test_a_failed_job_says_why_and_what_visitors_see() -> None:
    found = pages(shown=2, status="failed", error="no replica answered", generation=3)
    assert (found.severity, found.name) == (Severity.PROBLEM, "failed")
    assert f"The last rendering of {SITE} failed: no replica answered." in found.means
    assert found.visitors == "Visitors see the pages of generation 2."
    assert found.todo.startswith("Fix the cause of the error")
    without = pages(status="failed")
    assert "no reason is recorded" in without.means
    assert without.visitors == "The realm has no pages yet."
    assert pages(kind="source", status="failed").name == "failed"


def test_pages_of_the_realms_generation_and_drafts_are_fine() -> None:
    assert pages(shown=3).name == "shown"
    assert pages(shown=4).fine
    assert pages(kind="source", shown=1).fine
    assert pages(kind="bootstrap").fine


def test_the_operator_is_told_to_render_old_pages_without_a_job() -> None:
    found = pages(shown=2)
    assert (found.severity, found.name) == (Severity.PROBLEM, "not rendered")
    assert f"{SITE} is at generation 3, and no job renders its pages." in found.means
    assert "the pages of generation 2" in found.visitors
    assert found.todo == f"Run manage.py reindex_realm {SITE}."
    assert "a notice that the site isn't ready yet" in pages().visitors


def test_only_an_old_job_that_has_not_started_waits_for_a_worker() -> None:
    early = pages(status="queued", created_at=NOW - WAITS_FOR_WORKER)
    assert (early.severity, early.name) == (Severity.FINE, "queued")
    assert "are being rendered" in early.means
    old = NOW - WAITS_FOR_WORKER - MOMENT
    found = pages(shown=2, status="queued", created_at=old)
    assert (found.severity, found.name) == (Severity.PROBLEM, "waits for a worker")
    assert "has waited for 30 s for a worker" in found.means
    assert "the pages of generation 2" in found.visitors
    assert found.todo.startswith("Start Celery workers")
    begun = pages(status="rendering", created_at=old, started_at=NOW)
    assert (begun.severity, begun.name) == (Severity.FINE, "rendering")


# --- Words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"),
        (7200, "2 h"), (172_799, "48 h"), (172_800, "2 days"),
    ],
)  # fmt: skip
def test_a_duration_is_written_in_the_largest_precise_unit(seconds: int, said: str) -> None:
    assert duration(timedelta(seconds=seconds)) == said


def test_the_summary_names_the_worst_condition_and_counts_the_others() -> None:
    fine = Condition(Severity.FINE, "live", "It is live.")
    warning = Condition(Severity.WARNING, "missed", "It missed.", "Old files.", "See why.")
    problem = Condition(Severity.PROBLEM, "late", "It is late.", "Slower.", "Restart it.")
    assert summary([], 0, NOW).startswith("No replica has reported for a day.")
    assert summary([problem], 0, NOW).startswith("No replica has reported for a day.")
    assert summary([fine], 1, NOW) == "The replica is current as of 12:30:15 UTC."
    assert summary([fine], 2, NOW) == "All 2 replicas are current as of 12:30:15 UTC."
    assert summary([fine, warning], 1, NOW) == "It missed. See why."
    assert summary([warning, problem, fine], 1, NOW) == "It is late. Restart it. And 1 more."
    assert str(problem) == "It is late. Slower. Restart it."
