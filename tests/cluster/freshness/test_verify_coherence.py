"""Tests the command `verify_coherence`, which compares the answers of replicas with the database.

One test runs a real fleet. Its replicas are correct at first. Then one of them lags, serves wrong
bytes, and can't be reached. An answer is wrong if it differs from the database. A wrong answer is a
violation if the replica still gives it after the grace period, which the option `--grace` sets.
"""

import json
import os
import signal
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from notifications.board import now_ns
from notifications.models import Replica as Row
from realms.coherence import rules, verifier
from realms.coherence.rules import Observation, Verdict
from realms.coherence.verifier import Verification
from realms.models import CoherenceReport, Realm, RealmTombstone
from realms.publishing.bootstrap import sync_base_realm
from reindex.models import IndexedCard, IndexHead, ReindexJob
from tests.support import make
from tests.support.cluster import Replica, cluster, wait_until
from tests.support.gates import in_thread

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PUBLISHED = "http://ada.localhost:4201/"
SECOND = 1_000_000_000


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Runs one pass of `verify_coherence`. Returns the command's exit status and report."""
    out = StringIO()
    status: Any = 0
    try:
        call_command("verify_coherence", "--once", "--json", *arguments, stdout=out)
    except SystemExit as ended:
        status = ended.code
    return status, json.loads(out.getvalue())


def replicas_told() -> bool:
    return Row.objects.filter(state="live").count() == 2


def swap_page(realm: Realm, html: str) -> None:
    """Creates an index, the set of a realm's rendered pages, with one page. The rows are those that
    a finished job leaves."""
    job = ReindexJob.objects.create(
        realm_url=realm.url, generation=realm.generation, status=ReindexJob.Status.DONE
    )
    IndexedCard.objects.create(
        job=job, realm_url=realm.url, path="index", current=True, html={"isolated": html}
    )
    IndexHead.objects.create(
        realm_url=realm.url, job=job, generation=realm.generation, swapped_at=timezone.now()
    )


def freeze(replica: Replica, url: str) -> None:
    """Makes a replica serve the content of `url` from its caches, even after the content changes.

    Suspends the replica's sidecar, makes the replica's board live for a minute, and waits until
    both web workers have cached `url`. While the board is live, web workers trust their caches. In
    production only a running sidecar makes a board live.
    """
    replica.kill("sidecar", signal.SIGSTOP)
    replica.board.bump_epoch()
    replica.board.go_live(now_ns() + 60 * SECOND)
    wait_until(
        lambda: {each.cache for each in replica.each_worker(url).values()} == {"hit"},
        "both web workers answer from their caches",
    )


def judged(monkeypatch: pytest.MonkeyPatch) -> list[Observation]:
    """Returns a list to which each wrong answer is added when the verifier judges whether it is a
    violation."""
    found: list[Observation] = []

    def judge(answer: Observation, *rest: Any) -> Verdict:
        found.append(answer)
        return rules.judge(answer, *rest)

    monkeypatch.setattr(verifier, "judge", judge)
    return found


@pytest.mark.cluster
def test_verify_coherence_finds_lag_wrong_bytes_and_unreachable_replicas(
    source: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_base_realm()
    make.publish(source, PUBLISHED)
    published = Realm.objects.get(url=PUBLISHED)
    swap_page(published, "<p>one</p>")
    secret = make.source("http://localhost:4201/ada/secret/", source.owner, make.SITE, public=False)
    with cluster(tmp_path, 2) as fleet:
        _, b = fleet.replicas
        wait_until(replicas_told, "both replicas have reported")

        only = [f"--realm={url}" for url in (source.url, PUBLISHED, secret.url)]
        status, report = run(*only)
        assert (status, report["violations"], report["unreachable"]) == (0, [], {})
        assert report["replicas"] == ["a", "b"]
        files = len(make.SITE)
        # Two replicas serve each file of three realms as source and as module, and two cards as
        # pages.
        assert report["samples"] == 2 * (3 * 2 * files + 2)
        assert report["unchecked"] == {}
        assert CoherenceReport.objects.get().details == report

        # While files change, the verifier follows each change until both replicas serve it.
        verification = Verification(grace=3, samples=10, realms=[source.url, PUBLISHED, secret.url])
        watching = in_thread(verification.run, 1.5)
        wait_until(lambda: verification._generations, "the first poll")
        make.write(source, post__tsx=b"export const edition = 2;")
        make.remove(source, "dot.png")
        make.write(secret, ada__json=b"{}")
        make.publish(source, PUBLISHED)
        outcome = watching.result(60)
        assert outcome.exit_status == 0, outcome.as_json()
        # The write and the removal in the source count as one change if the verifier doesn't poll
        # between them.
        assert 3 <= outcome.changes <= 4
        assert outcome.within[1] <= outcome.within[10] <= outcome.within[60] == outcome.changes

        # Replica b gets no notification of the next change, and gives wrong answers. But replica b
        # bypasses its caches before the grace period ends, so no answer is a violation.
        post = f"{source.url}post.tsx"
        freeze(b, post)
        make.write(source, post__tsx=b"export const edition = 3;")
        assert "edition = 2" in b.get(post).text
        wrong_answers = judged(monkeypatch)
        verification = Verification(grace=4, samples=10, realms=[source.url])
        checking = in_thread(verification.run, 0)
        wait_until(
            lambda: len({found.sent_at for found in wrong_answers}) > 2, "the verifier asks b again"
        )
        b.board.go_live(0)
        outcome = checking.result(60)
        assert (outcome.exit_status, outcome.violations) == (0, [])

        # Replica b gets no notifications, and still serves the old file after the grace period.
        freeze(b, post)
        expected = make.write(source, post__tsx=b"export const edition = 4;")
        status, report = run("--realm", source.url, "--grace", "0.5")
        assert status == 1
        [wrong] = [each for each in report["violations"] if each["variant"] == "module"]
        assert (wrong["replica"], wrong["realm"], wrong["path"]) == ("b", source.url, "post.tsx")
        assert wrong["worker"].startswith("b/")
        assert (wrong["expected_generation"], wrong["found_generation"]) == (expected, expected - 1)
        assert "other bytes" in wrong["why"]
        assert {each["replica"] for each in report["violations"]} == {"b"}

        os.killpg(b.running["web"].pid, signal.SIGKILL)
        b.running["web"].wait()
        status, report = run(*only, "--grace", "0.5")
        assert (status, report["violations"]) == (2, [])
        assert list(report["unreachable"]) == ["b"]
        assert "refused" in report["unreachable"]["b"]
        assert CoherenceReport.objects.first().unreachable == 1  # type: ignore[union-attr]

        # The verifier expects no answer of a replica that was shut down properly a minute ago.
        Row.objects.filter(name="b").update(
            state="stopped", reported_at=timezone.now() - timedelta(minutes=1)
        )
        status, report = run(*only, "--grace", "0.5", "--samples", "3")
        assert (status, report["unreachable"], report["retired"]) == (0, {}, ["b"])


def refused(*arguments: str) -> CommandError:
    with pytest.raises(CommandError) as raised:
        call_command("verify_coherence", *arguments)
    assert raised.value.returncode == 3
    return raised.value


def test_verify_coherence_fails_without_a_replica_or_a_realm(source: Realm) -> None:
    assert "no replica has reported within a day" in str(refused("--once"))
    Row.objects.create(
        name="a", address="http://127.0.0.1:9", state="live", sidecar_pid=1,
        reported_at=timezone.now(),
    )  # fmt: skip
    assert "none of http://localhost:4201/no/such/ is a realm" in str(
        refused("--once", "--realm", "http://localhost:4201/no/such")
    )
    assert "has no valid host" in str(refused("--realm", "http:///"))
    Realm.objects.all().delete()
    assert "there is no realm" in str(refused("--once"))
    assert not CoherenceReport.objects.exists()


@pytest.mark.parametrize(
    "arguments",
    [("--seconds", "0"), ("--seconds", "nan"), ("--grace", "x"), ("--samples", "0"),
     ("--once", "--seconds", "5")],
)  # fmt: skip
def test_verify_coherence_refuses_invalid_options(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match=arguments[0]):
        call_command("verify_coherence", *arguments)


def test_verify_coherence_names_realms_of_other_origins_unchecked(source: Realm) -> None:
    """Such realms exist if the server once had a public origin with another scheme or port."""
    strays = [
        make.source(url, source.owner, make.SITE).url
        for url in ("http://localhost:4300/ada/site/", "https://localhost:4201/ada/site/",
                    "http://ada.localhost/")
    ]  # fmt: skip
    RealmTombstone.objects.create(url="http://gone.localhost:4300/", generation=1)
    Row.objects.create(
        name="a", address="http://127.0.0.1:9", state="live", sidecar_pid=1,
        reported_at=timezone.now(),
    )  # fmt: skip
    verification = Verification(grace=1, samples=50)
    verification._draw()
    assert {question.realm_url for question in verification._queue} == {source.url}
    assert list(verification.outcome.unchecked) == sorted(strays)
