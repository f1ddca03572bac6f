"""Evaluates the alert rules and the dashboard on real answers of `/_metrics`.

For each alert, a test simulates the fault in the database. Prometheus' own `promtool` evaluates the
rules on the answers of `/_metrics` before and after the fault. Without promtool (Debian:
`apt install prometheus`) these tests are skipped, and only the names of metrics are checked.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db.models import F
from django.test import override_settings
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from notifications.board import now_ns
from notifications.emit import local_board
from notifications.models import Replica, ReplicaGeneration
from realms.figures.counting import Counts
from realms.models import CoherenceReport, Realm
from reindex.models import ReindexJob, Worker
from settings.environment import BASE_DIR
from tests.support.web import Web

pytestmark = pytest.mark.django_db(transaction=True)

FOLDER = BASE_DIR / "deploy" / "monitoring"
ALERTS = FOLDER / "alerts.yml"
TOKEN = "the token of the tests' metrics"
PROMTOOL = shutil.which("promtool")
#: The number of scrapes before and after the fault. A scrape is one reading of the metrics by
#: Prometheus. There are four scrapes a minute.
BEFORE, AFTER = 80, 40

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool isn't installed (Debian: apt install prometheus)"
)


@pytest.fixture
def fleet(source: Realm, web: Web) -> Iterator[Web]:
    """Yields a server with the database rows of a fleet. The fleet has no faults, and every metric
    has a value."""
    now = timezone.now()
    counts = Counts()
    counts.slow_request(0.3)
    figures = {
        **counts.figures(), "requests": 100, "stale_discards": 0, "entries": 3, "bytes": 9,
        "web_workers": 2, "build": "1", "host": "h", "lag_p50_seconds": 0.1, "lag_p99_seconds": 0.2,
    }  # fmt: skip
    for name in ("a", "b"):
        replica = Replica.objects.create(
            name=name, address=f"http://{name}", state="live", sidecar_pid=1, watermark_at=now,
            reported_at=now, figures=figures,
        )  # fmt: skip
        ReplicaGeneration.objects.bulk_create(
            ReplicaGeneration(
                replica=replica, realm_url=realm.url, generation=realm.generation, applied_at=now
            )
            for realm in Realm.objects.all()
        )
    Worker.objects.create(
        name="w@h", host="h", pid=1, processes=2, started_at=now, heard_at=now + timedelta(hours=1)
    )
    ReindexJob.objects.create(
        realm_url="x", generation=1, status="done", started_at=now, finished_at=now
    )
    CoherenceReport.objects.create(
        started_at=now, seconds=60, samples=90, violations=0, unreachable=0, changes=200,
        within_1s=190, within_10s=199, within_60s=200, details={},
    )  # fmt: skip
    local_board().go_live(now_ns() + 3600_000_000_000)
    with override_settings(REALM_METRICS_TOKEN=TOKEN):
        yield web


def scrape(web: Web) -> str:
    answer = web.get(f"http://127.0.0.1:{web.port}/_metrics", Authorization=f"Bearer {TOKEN}")
    return answer.text if answer.status == 200 else ""


def series(text: str) -> dict[str, float]:
    """Returns the value of each sample. The keys are names with labels in promtool's notation."""
    return {
        f"{sample.name}{{{', '.join(f'{k}={json.dumps(v)}' for k, v in sample.labels.items())}}}": (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def expressions() -> list[str]:
    board = json.loads((FOLDER / "dashboard.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [*shown, *(rule["expr"] for rule in rules())]


# --- Names -------------------------------------------------------------------------------------


def test_alerts_and_dashboard_name_only_existing_metrics(fleet: Web) -> None:
    there = {name.partition("{")[0] for name in series(scrape(fleet))}
    named = {name for text in expressions() for name in re.findall(r"\brealm_\w+", text)}
    assert named - there == set()
    assert len(named) > 20


def test_the_reference_page_describes_exactly_the_existing_metrics(fleet: Web) -> None:
    page = (BASE_DIR / "docs" / "reference" / "metrics.md").read_text()
    described = re.findall(r"^\| `(realm_\w+)` \|", page, re.MULTILINE)
    there = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(scrape(fleet))
    }
    assert sorted(described) == sorted(there)


def test_each_metric_has_exactly_its_described_labels(fleet: Web) -> None:
    page = (BASE_DIR / "docs" / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(realm_\w+)` \|(.*?)\|", page, re.MULTILINE)
    described = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    for family in text_string_to_metric_families(scrape(fleet)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert {label for s in family.samples for label in s.labels} == described[name], name


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "means", "visitors", "do"}, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
    lines = ALERTS.read_text().splitlines()
    starts = [at for at, line in enumerate(lines) if "- alert:" in line]
    assert all(lines[at - 1].lstrip().startswith("#") for at in starts), "an alert has no comment"


def test_the_dashboard_takes_each_fleet_figure_from_one_target() -> None:
    """Each replica that Prometheus scrapes reports the figures of the whole fleet. So a query must
    take the maximum of the answers, because their sum would count each figure several times."""
    board = json.loads((FOLDER / "dashboard.json").read_text())
    figure = r"(?:(?:rate|increase)\()?realm_\w+(?:\{[^}]*\})?(?:\[[^\]]+\]\))?"
    once = re.compile(rf"max(?: by \([a-z, ]+\) )?\({figure}\)")
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert "realm_" not in once.sub("", target["expr"]), target["expr"]


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    assert PROMTOOL is not None
    subprocess.run([PROMTOOL, "check", "rules", str(ALERTS)], check=True, capture_output=True)


@needs_promtool
def test_promtool_can_parse_the_dashboards_queries(tmp_path: Path) -> None:
    asked = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    assert PROMTOOL is not None
    checked = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True)
    assert checked.returncode == 0, checked.stderr.decode()


# --- Faults ------------------------------------------------------------------------------------


def _ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


def _counted(**more: int) -> None:
    replica = Replica.objects.get(name="a")
    for name, number in more.items():
        replica.figures[name] += number
    replica.save()


#: The fault that triggers each alert.
FAULTS: dict[str, Callable[[], Any]] = {
    "RealmMetricsAway": lambda: None,
    "RealmReplicaSilent": lambda: Replica.objects.filter(name="a").update(reported_at=_ago(90)),
    "RealmWebNotAnswering": lambda: Replica.objects.filter(name="a").update(web_answers=False),
    "RealmWatermarkLate": lambda: Replica.objects.filter(name="a").update(watermark_at=_ago(20)),
    "RealmGenerationsBehind": lambda: ReplicaGeneration.objects.filter(replica="a").update(
        generation=F("generation") - 1
    ),
    "RealmChangeMissed": lambda: Replica.objects.filter(name="a").update(missed=1),
    "RealmBoardNotVouched": lambda: local_board().go_live(0),
    "RealmCachesBypassed": lambda: _counted(requests=100, bypasses=50),
    "RealmJobsOld": lambda: ReindexJob.objects.filter(
        pk=ReindexJob.objects.create(realm_url="y", generation=1).pk
    ).update(created_at=_ago(1000)),
    "RealmJobsFailed": lambda: ReindexJob.objects.create(
        realm_url="y", generation=1, status="failed"
    ),
    "RealmNoWorker": lambda: Worker.objects.update(heard_at=_ago(40)),
    "RealmViolationsFound": lambda: CoherenceReport.objects.update(violations=1),
}
#: Harmless states, by alert. Each state resembles the alert's fault, but is below the alert's
#: threshold.
HARMLESS: dict[str, Callable[[], Any]] = {
    "RealmReplicaSilent": lambda: Replica.objects.filter(name="a").update(reported_at=_ago(20)),
    "RealmWatermarkLate": lambda: Replica.objects.filter(name="a").update(watermark_at=_ago(8)),
    "RealmCachesBypassed": lambda: _counted(requests=1000, bypasses=10),
    "RealmJobsOld": lambda: ReindexJob.objects.filter(
        pk=ReindexJob.objects.create(realm_url="y", generation=1).pk
    ).update(created_at=_ago(600)),
    "RealmNoWorker": lambda: Worker.objects.update(heard_at=_ago(10)),
}


def firing(before: str, after: str, folder: Path) -> dict[str, set[str]]:
    """Returns the alerts that fire at the last scrape before the fault, and those that fire at the
    last scrape of all. `before` and `after` are the answers of `/_metrics` before and after the
    fault."""
    first, then = series(before), series(after)
    rows = []
    for name in sorted({*first, *then}):
        value = [f"{each[name]!r}x" if name in each else "_x" for each in (first, then)]
        # In promtool, `1+0x3` means the value 1 and three repetitions of it, and `_x3` means three
        # missing values.
        counts = [n - (name in each) for each, n in ((first, BEFORE), (then, AFTER))]
        values = " ".join(
            f"{v.removesuffix('x')}+0x{n}" if v[0] != "_" else f"{v}{n}"
            for v, n in zip(value, counts, strict=True)
        )
        rows.append({"series": name, "values": values})
    moments = [f"{scrapes * 15}s" for scrapes in (BEFORE - 1, BEFORE + AFTER - 1)]
    return dict(zip(("before", "after"), _firing(rows, moments, folder), strict=True))


def _firing(rows: list[dict[str, str]], moments: list[str], folder: Path) -> list[set[str]]:
    """Returns the alerts that fire at each moment, if Prometheus has scraped these series."""
    assert PROMTOOL is not None
    # The expected samples are wrong on purpose, so that promtool prints the actual ones.
    alerts = 'count by (alertname) (ALERTS{alertstate="firing"}) or vector(0)'
    asked = [{"expr": alerts, "eval_time": moment, "exp_samples": []} for moment in moments]
    test = {"interval": "15s", "input_series": rows, "promql_expr_test": asked}
    file = folder / "test.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": [test]})
    )
    ran = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    got = (ran.stdout + ran.stderr).split("got:")[1:]
    assert len(got) == len(moments), ran
    return [set(re.findall(r'alertname="(\w+)"', each)) for each in got]


@needs_promtool
@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires_for_its_fault_and_not_before(
    fleet: Web, tmp_path: Path, alert: str
) -> None:
    before = scrape(fleet)
    assert before
    FAULTS[alert]()
    after = "" if alert == "RealmMetricsAway" else scrape(fleet)
    assert firing(before, after, tmp_path) == {"before": set(), "after": {alert}}


@needs_promtool
@pytest.mark.parametrize("alert", HARMLESS)
def test_no_alert_fires_below_its_threshold(fleet: Web, tmp_path: Path, alert: str) -> None:
    before = scrape(fleet)
    HARMLESS[alert]()
    assert firing(before, scrape(fleet), tmp_path) == {"before": set(), "after": set()}


@needs_promtool
@pytest.mark.parametrize(
    ("failed", "fires"),
    # Each value is the number of failed jobs at one scrape. The sweeper, a periodic task, queues a
    # failed job again after a minute, which is four scrapes.
    [("1 1 1 1 0 " * 8, True), ("1 1 1 1 " + "0 " * 36, False)],
    ids=["each retry fails", "the first retry succeeds"],
)
def test_a_retry_that_fails_does_not_silence_the_alert(
    tmp_path: Path, failed: str, fires: bool
) -> None:
    jobs = {"series": 'realm_reindex_jobs{state="failed"}', "values": failed}
    moments = [f"{scrapes * 15}s" for scrapes in range(40)]
    fired = ["RealmJobsFailed" in names for names in _firing([jobs], moments, tmp_path)]
    assert any(fired) is fires
    assert fired[-1] is fires


def test_every_alert_has_a_fault_that_causes_it() -> None:
    assert {rule["alert"] for rule in rules()} == set(FAULTS)
