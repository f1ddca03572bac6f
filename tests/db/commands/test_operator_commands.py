"""Tests the output and the effects of the commands `generations`, `clear_caches` and `jobs`."""

import json
import re
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from definitions.models import CacheGeneration
from notifications.models import Replica, ReplicaGeneration
from realms.models import Realm
from reindex.models import ReindexJob
from tests.support import make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PUBLISHED = "http://ada.localhost:4201/"


class Terminal(StringIO):
    """An output stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def run(*arguments: str, out: StringIO | None = None) -> str:
    """Runs a command and returns its output."""
    out = out or StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def published(source: Realm) -> Realm:
    make.publish(source, PUBLISHED)
    return Realm.objects.get(url=PUBLISHED)


def replica(name: str, generation: int, **more: Any) -> Replica:
    """Creates a `Replica` and its `ReplicaGeneration` rows. The replica has applied `generation` of
    the published realm, and the current generation of each other realm."""
    now = timezone.now()
    given = {"state": "live", "watermark_at": now, "reported_at": now, **more}
    made = Replica.objects.create(name=name, address="http://127.0.0.1:1", sidecar_pid=1, **given)
    for url, each in [(PUBLISHED, generation), *_others()]:
        ReplicaGeneration.objects.create(
            replica=made, realm_url=url, generation=each, applied_at=now
        )
    return made


def _others() -> list[tuple[str, int]]:
    return list(Realm.objects.exclude(url=PUBLISHED).values_list("url", "generation"))


# --- generations -------------------------------------------------------------------------------


def test_generations_says_what_is_wrong_and_what_to_do(published: Realm) -> None:
    replica("web-1", 1)
    replica("web-2", 1, web_answers=False)
    said = run("generations")
    assert said.startswith("The web service of web-2 does not answer at http://127.0.0.1:1.")
    assert "web-2    no web service" in said
    assert "ada.localhost:4201/" in said


def test_generations_marks_a_replica_that_is_behind(published: Realm) -> None:
    replica("web-1", 0)
    row = next(line for line in run("generations").splitlines() if "ada.localhost" in line)
    assert row.split() == ["ada.localhost:4201/", "1", "-", "0", "!"]


def test_generations_prints_json_for_programs(published: Realm) -> None:
    replica("web-1", 0)
    found = json.loads(run("generations", PUBLISHED, "--json"))
    assert found["realms"] == [{
        "url": PUBLISHED, "kind": "published", "generation": 1, "pages": None,
        "applied": {"web-1": 0},
    }]  # fmt: skip
    assert found["replicas"][0]["condition"]["name"] == "live"


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_a_table_is_no_wider_than_the_terminal(
    published: Realm, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    replica("web-1", 1)
    lines = _COLOURS.sub("", run("generations", out=Terminal())).splitlines()
    assert max(map(len, lines)) <= int(columns)


def test_piped_output_is_never_cut(published: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    replica("web-1", 1)
    assert "ada.localhost:4201/" in run("generations")
    assert "\x1b" not in run("generations")


# --- clear_caches ------------------------------------------------------------------------------


def test_a_dry_run_of_clear_names_the_replicas_and_clears_nothing(published: Realm) -> None:
    replica("web-1", 1)
    before = CacheGeneration.objects.get(scope="realm", key=PUBLISHED).generation
    said = run("clear_caches", PUBLISHED, "--dry-run")
    assert f"Clears the caches of {PUBLISHED}: " in said
    assert "replicas: web-1." in said
    assert "Nothing was cleared." in said
    assert CacheGeneration.objects.get(scope="realm", key=PUBLISHED).generation == before


def test_clear_prints_each_replicas_answer(published: Realm) -> None:
    replica("web-1", 1, watermark_at=timezone.now() + timedelta(minutes=1))
    said = run("clear_caches", PUBLISHED)
    assert said.splitlines()[-1] == "web-1: cleared"


def test_a_clear_of_definitions_purges_no_shared_cache(published: Realm, settings: Any) -> None:
    settings.REALM_EDGE_PURGE = ["http://127.0.0.1:1/"]
    assert "127.0.0.1:1" not in run("clear_caches", "--definitions")
    with pytest.raises(CommandError, match="not every shared cache"):
        run("clear_caches", PUBLISHED)


def test_clear_fails_while_a_replica_has_not_answered(published: Realm) -> None:
    out = StringIO()
    replica("web-1", 1)
    replica("web-2", 1, reported_at=timezone.now() - timedelta(minutes=9))
    with pytest.raises(CommandError, match="not every replica has answered"):
        call_command("clear_caches", "--all", "--yes", "--wait", "0", stdout=out)
    assert "web-1: live, no answer yet" in out.getvalue()
    assert "web-2: has not reported" in out.getvalue()


def test_clear_names_a_realm_that_is_missing(published: Realm) -> None:
    with pytest.raises(CommandError, match=r"http://no\.localhost:4201/ was not found"):
        run("clear_caches", "http://no.localhost:4201/")


def test_only_an_owner_or_the_operator_may_clear_a_realm(published: Realm) -> None:
    make.user("eve")
    with pytest.raises(CommandError, match="@eve:localhost is not allowed"):
        run("clear_caches", PUBLISHED, "--as", "eve")
    with pytest.raises(CommandError, match="@ada:localhost is not allowed"):
        run("clear_caches", "--all", "--yes", "--as", "ada")


# --- jobs --------------------------------------------------------------------------------------


def test_jobs_lists_unfinished_jobs_and_shows_why_a_job_failed(published: Realm) -> None:
    job = ReindexJob.objects.get(realm_url=PUBLISHED)
    ReindexJob.objects.filter(pk=job.pk).update(
        status="failed", error="no replica answered", finished_at=timezone.now(), total=9, seen=4
    )
    row = next(line for line in run("jobs").splitlines() if "ada.localhost" in line)
    assert row.split()[:3] == [str(job.pk), "failed", "4/9"]
    assert "no replica answered" in run("jobs", str(job.pk))
    assert json.loads(run("jobs", str(job.pk), "--json"))["error"] == "no replica answered"


def test_jobs_retries_a_failed_job_and_cancels_an_unfinished_one(published: Realm) -> None:
    job = ReindexJob.objects.get(realm_url=PUBLISHED)
    with pytest.raises(CommandError, match="only a failed job is retried"):
        run("jobs", str(job.pk), "--retry")
    ReindexJob.objects.filter(pk=job.pk).update(status="failed", finished_at=timezone.now())
    assert "queued again" in run("jobs", str(job.pk), "--retry")
    assert ReindexJob.objects.get(pk=job.pk).status == "queued"
    assert "is cancelled" in run("jobs", str(job.pk), "--cancel")
    with pytest.raises(CommandError, match="is cancelled already"):
        run("jobs", str(job.pk), "--cancel")
    with pytest.raises(CommandError, match="there is no job 0"):
        run("jobs", "0")


def test_jobs_lists_finished_jobs_only_with_the_option_all(published: Realm) -> None:
    job = ReindexJob.objects.get(realm_url=PUBLISHED)
    assert [each["finishedAt"] for each in json.loads(run("jobs", "--json"))] == [None]
    ended = timezone.now()
    ReindexJob.objects.update(status="done", finished_at=ended, summary={"replicas": {"a": 1}})
    assert run("jobs") == "No job is waiting, running or failed.\n"
    assert json.loads(run("jobs", "--json")) == []
    row = next(line for line in run("jobs", "--all").splitlines() if "ada.localhost" in line)
    assert row.split()[:3] == [str(job.pk), "done", "-"]
    (found,) = json.loads(run("jobs", "--all", "--json"))
    assert (found["job"], found["finishedAt"]) == (job.pk, ended.isoformat())
    assert json.loads(run("jobs", str(job.pk), "--json"))["summary"] == {"replicas": {"a": 1}}
    assert run("jobs", str(job.pk)).startswith(f"job {job.pk}: {PUBLISHED}, generation 1, done")


@pytest.mark.parametrize("option", ["--retry", "--cancel"])
def test_jobs_retries_and_cancels_only_a_job_that_is_named(published: Realm, option: str) -> None:
    with pytest.raises(CommandError, match="require the number of a job"):
        run("jobs", option)
    assert ReindexJob.objects.get(realm_url=PUBLISHED).status == "queued"


def test_clear_says_that_there_is_no_replica_to_wait_for(published: Realm) -> None:
    assert "No replica has reported, so there is nothing to wait for." in run(
        "clear_caches", PUBLISHED
    )


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("jobs", "--limit", "-1"),
        ("jobs", "--limit", "0"),
        ("clear_caches", "--all", "--wait", "nan"),
        ("clear_caches", "--all", "--wait", "-1"),
        ("listen_file_changes", "--give-up-after", "-1"),
        ("listen_file_changes", "--check", "--purge-edge"),
        ("verify_coherence", "--seconds", "inf"),
        ("verify_coherence", "--samples", "1.5"),
    ],
    ids=" ".join,
)
def test_a_command_refuses_an_impossible_option_and_names_it(command: tuple[str, ...]) -> None:
    with pytest.raises(
        CommandError, match=f"argument {command[-2].partition('=')[0]}|{command[-1]}"
    ):
        run(*command)
