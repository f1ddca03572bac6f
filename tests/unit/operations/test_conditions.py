"""Tests the sentence that operators read about each state of a replica. The sentence also says what
to do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifications.models import Replica
from realms.coherence import conditions
from realms.coherence.conditions import Severity, duration, of_cell, of_replica, summary

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BOUND = timedelta(seconds=2)


def replica(**more: Any) -> Replica:
    given = {"state": "live", "web_answers": True, "watermark_at": NOW, "reported_at": NOW, **more}
    return Replica(name="web-2", address="http://10.0.0.2:4201", **given)


#: A replica, the name of its condition, and words of its sentence.
STATES = [
    (replica(), "live", ""),
    (replica(reported_at=NOW - timedelta(minutes=3)), "silent", "Restart listen_file_changes on"),
    (replica(web_answers=False), "no web service", "Restart the web service on web-2"),
    (replica(state="connecting"), "connecting", "LISTEN_DATABASE_URL"),
    (replica(state="listening"), "listening", "LISTEN_DATABASE_URL"),
    (replica(state="stopped"), "stopped", "Start listen_file_changes on web-2"),
    (replica(watermark_at=None), "late", "no watermark"),
    (replica(watermark_at=NOW - timedelta(seconds=9)), "late", "a watermark 9 s old"),
    (replica(missed=3), "missed changes", "found 3 changes"),
]


@pytest.mark.parametrize(("reported", "name", "says"), STATES)
def test_each_state_of_a_replica_says_what_to_do(reported: Replica, name: str, says: str) -> None:
    found = of_replica(reported, NOW, BOUND)
    assert found.name == name
    assert says in str(found)
    assert found.fine == (name == "live")
    assert found.fine or (found.visitors and found.todo)


def test_a_watermark_within_bound_and_slack_is_fine() -> None:
    just = NOW - BOUND - conditions.SLACK
    assert of_replica(replica(watermark_at=just), NOW, BOUND).fine
    assert not of_replica(replica(watermark_at=just - timedelta(seconds=1)), NOW, BOUND).fine


def test_a_replica_is_behind_only_when_its_report_is_overdue() -> None:
    assert of_cell("a", 0, timedelta(days=1), BOUND).fine
    assert of_cell("a", 2, timedelta(seconds=3), BOUND).fine
    late = of_cell("a", 2, timedelta(seconds=40), BOUND)
    assert (late.severity, late.name) == (Severity.PROBLEM, "2 behind")
    assert late.means == "a has not reported 2 generations of this realm for 40 s."


def test_the_summary_names_the_worst_and_counts_the_rest() -> None:
    fine = of_replica(replica(), NOW, BOUND)
    gone = of_replica(replica(web_answers=False), NOW, BOUND)
    missed = of_replica(replica(missed=1), NOW, BOUND)
    assert summary([fine], 1, NOW) == "The replica is current as of 03:04:05 UTC."
    assert summary([fine, fine], 2, NOW) == "All 2 replicas are current as of 03:04:05 UTC."
    assert summary([missed, gone], 2, NOW).startswith("The web service of web-2 does not answer")
    assert summary([missed, gone], 2, NOW).endswith("And 1 more.")
    assert "Start a web service" in summary([], 0, NOW)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 days")],
)
def test_a_duration_is_written_in_one_unit(seconds: int, said: str) -> None:
    assert duration(timedelta(seconds=seconds)) == said
