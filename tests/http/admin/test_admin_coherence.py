"""Tests the admin's coherence pages. They show the newest generation of each realm, the generation
up to which each replica has applied the realm's changes, and which replicas are behind."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from notifications.models import Replica, ReplicaGeneration
from realms.coherence.generations import REALMS_PER_PAGE, matrix
from realms.models import Realm
from reindex.models import IndexHead, ReindexJob
from tests.support import make
from tests.support.clients.admin import PUBLISHED, make_replica, text_of, words_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

START = "/_admin/"
LIVE = "/_admin/coherence/"


def test_the_matrix_shows_generations_and_marks_replicas_behind(
    root: Client, published: Realm
) -> None:
    make_replica("a", {PUBLISHED: 2})
    make_replica("b", {PUBLISHED: 1})
    make_replica("c", {PUBLISHED: 1}, silent=timedelta(minutes=5))
    make_replica("d", {PUBLISHED: 1}, silent=timedelta(days=3))
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    IndexHead.objects.create(realm_url=PUBLISHED, job=job, generation=1, swapped_at=timezone.now())
    cells = _cells(root.get(START), PUBLISHED)
    assert cells[:5] == [
        "2",
        "1 2 queued",
        "2 ✓ current",
        "1 behind by 1, why?",
        "1 last known",
    ]
    page = words_of(root.get(START))
    assert "a live address http://127.0.0.1:1 web service answers watermark" in page
    assert "c silent address http://127.0.0.1:1" in page
    assert "c has not reported for 5 min: its sidecar does not run" in page
    assert "What to do: Restart listen_file_changes on c, and read its log." in page
    assert "1 more with no report for a day" in page


def test_the_first_line_says_whether_there_is_a_problem(root: Client, published: Realm) -> None:
    assert "No replica has reported for a day." in words_of(root.get(START))
    IndexHead.objects.create(
        realm_url=PUBLISHED,
        job=ReindexJob.objects.get(realm_url=PUBLISHED, status="queued"),
        generation=2,
        swapped_at=timezone.now(),
    )
    current = {realm.url: realm.generation for realm in Realm.objects.all()}
    make_replica("a", current)
    make_replica("b", current)
    assert "✓ All 2 replicas are current as of " in words_of(root.get(START))
    Replica.objects.filter(name="b").update(web_answers=False)
    said = words_of(root.get(START))
    assert "⚠ The web service of b does not answer at http://127.0.0.1:1. Restart the web" in said


def test_realms_with_problems_come_first_and_can_be_filtered(
    root: Client, published: Realm, source: Realm
) -> None:
    current = {realm.url: realm.generation for realm in Realm.objects.all()}
    make_replica("a", {**current, source.url: 1})
    shown = root.get(START).content.decode()
    assert shown.index(f">{source.url}</a>") < shown.index(f">{PUBLISHED}</a>")
    alone = root.get(START, {"problems": "on", "q": "/ada/"}).content.decode()
    assert f">{source.url}</a>" in alone
    ReplicaGeneration.objects.filter(realm_url=source.url).update(generation=source.generation)
    assert "No realm has a problem." in words_of(root.get(START, {"problems": "on", "q": "/ada/"}))


def test_a_realm_with_a_failed_job_has_a_problem(
    root: Client, published: Realm, source: Realm
) -> None:
    make_replica("a", {realm.url: realm.generation for realm in Realm.objects.all()})
    job = ReindexJob.objects.create(realm_url=source.url, generation=1, status="failed")
    shown = root.get(START, {"problems": "on", "q": "/ada/"}).content.decode()
    assert f">{source.url}</a>" in shown
    # A later job has ended without a failure.
    ReindexJob.objects.create(realm_url=source.url, generation=1, status="done")
    assert "No realm has a problem." in words_of(root.get(START, {"problems": "on", "q": "/ada/"}))
    ReindexJob.objects.filter(pk__gt=job.pk, realm_url=source.url).update(status="queued")
    assert "No realm has a problem." in words_of(root.get(START, {"problems": "on", "q": "/ada/"}))


def test_a_deletion_is_no_problem_before_the_next_report(root: Client, source: Realm) -> None:
    current = {realm.url: realm.generation for realm in Realm.objects.all()}
    make_replica("a", current, silent=timedelta(days=1))
    Replica.objects.update(reported_at=timezone.now(), watermark_at=timezone.now())
    make.remove(source, "index.json")
    (row,) = (row for row in matrix(source.url, None).rows if row.realm.pk == source.pk)
    assert [(cell.behind, cell.condition.fine) for cell in row.cells] == [(1, True)]
    said = words_of(root.get(f"/_admin/realms/realm/{source.pk}/why/a/"))
    assert "cause: deletion of index.json" in said


def test_a_cell_links_to_why_its_replica_is_behind(root: Client, published: Realm) -> None:
    make_replica("a", {PUBLISHED: 1})
    shown = root.get(f"/_admin/realms/realm/{published.pk}/why/a/")
    said = words_of(shown)
    assert f"a is behind by 1 generation of {PUBLISHED}." in said
    assert "Generation 2 was committed" in said
    assert "published by ada from http://localhost:4201/ada/site/" in said
    assert "a reported generation 1 of the realm" in said
    assert root.get(f"/_admin/realms/realm/{published.pk}/why/none/").status_code == 404


def test_a_replica_with_an_old_watermark_is_shown_as_late(root: Client) -> None:
    make_replica("a", {})
    Replica.objects.update(watermark_at=timezone.now() - timedelta(seconds=9))
    assert "a late" in words_of(root.get(START))


def test_hundreds_of_realms_cost_no_more_queries_than_one(root: Client, published: Realm) -> None:
    make_replica("a", {PUBLISHED: 1})
    few = _queries(root)
    assert few <= 12
    owner = published.owner
    for number in range(120):
        url = f"http://localhost:4201/ada/many-{number:03}/"
        Realm.objects.create(url=url, kind=Realm.Kind.SOURCE, owner=owner)
    make_replica("b", {realm.url: 0 for realm in Realm.objects.all()})
    assert _queries(root) == few
    assert "Page 5 of 5" in words_of(root.get(START, {"p": "5"}))
    found = words_of(root.get(START, {"q": "MANY-11"}))
    assert "10 realms whose URL contains" in found
    assert "many-119/" in found
    assert "many-012/" not in found


@pytest.mark.parametrize(
    ("asked", "number"),
    [("2", 2), ("3", 3), ("4", 3), ("9" * 30, 3), ("0", 3), ("-1", 3), ("x", 1), ("", 1)],
)
def test_a_page_that_does_not_exist_is_the_last_or_the_first(
    asked: str, number: int, source: Realm
) -> None:
    Realm.objects.bulk_create(
        Realm(url=f"http://localhost:4201/many/{each:03}/", kind=Realm.Kind.SOURCE)
        for each in range(2 * REALMS_PER_PAGE)
    )
    every = sorted(Realm.objects.values_list("url", flat=True))
    found = matrix("", asked)
    on_page = every[(number - 1) * REALMS_PER_PAGE : number * REALMS_PER_PAGE]
    assert [row.realm.url for row in found.rows] == on_page
    assert (found.page.number, found.page.paginator.count) == (number, len(every))


def test_the_refreshed_fragment_has_only_the_content(root: Client, published: Realm) -> None:
    fragment = root.get(LIVE, {"fragment": "1", "q": "ada."}).content.decode()
    assert fragment.lstrip().startswith('<p class="verdict')
    assert PUBLISHED in fragment
    assert "<html" not in fragment


def _queries(browser: Client) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert browser.get(START).status_code == 200
    return len(captured)


def _cells(answer: Any, url: str) -> list[str]:
    """Returns the cells of one realm's row as text."""
    row = next(row for row in answer.content.decode().split("<tr>") if f">{url}</a>" in row)
    return [text_of(f"<td{cell}") for cell in row.split("<td")[1:]]
