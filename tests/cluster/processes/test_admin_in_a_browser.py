"""Finds and fixes faults of a fleet by clicking in the admin, in a real browser.

The tests take about a minute, because they wait for reports of real sidecars. The tests need
Debian's Chromium (`apt-get install chromium`) and are skipped without it.
"""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth import get_user_model
from django.db import connections
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect, sync_playwright

from notifications.models import Replica
from realms.models import Realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.cluster import Cluster, cluster, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(420),
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs a browser: apt-get install --no-install-recommends chromium"
    ),
]

PUBLISHED = "http://ada.localhost:4201/"
#: How many ms a page may take to show a change. Some changes appear only after the next report of a
#: replica's sidecar, or when this report is overdue.
SHOWN_MS = 60_000
WIDTHS = (1440, 390)


@pytest.fixture
def fleet(tmp_path: Path, source: Realm) -> Iterator[Cluster]:
    """Yields a cluster of two replicas without a Celery worker."""
    with cluster(tmp_path) as made:
        made.wait_reported()
        yield made


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    # By default Django refuses database queries in a thread that runs an event loop. Playwright
    # runs an event loop in the thread of the tests.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()
        # While the event loop runs, Django uses separate connections in this thread. Close them
        # before the loop ends.
        connections.close_all()


@pytest.fixture
def page(fleet: Cluster, browser: Browser) -> Iterator[Page]:
    """Logs a superuser in through the form and yields the browser page. An answer with a status of
    400 or above fails the test, and so does an error of a script."""
    get_user_model().objects.create_superuser("root", password="root")
    context = browser.new_context(
        base_url=fleet.replicas[0].address, viewport={"width": WIDTHS[0], "height": 900}
    )
    made = context.new_page()
    refused: list[str] = []
    made.on(
        "response",
        lambda each: refused.append(f"{each.status} {each.url}") if each.status >= 400 else None,
    )
    made.on("pageerror", lambda error: refused.append(str(error)))
    made.goto("/_admin/")
    made.fill("input[name=username]", "root")
    made.fill("input[name=password]", "root")
    made.keyboard.press("Enter")
    expect(made.locator(".verdict")).to_be_visible()
    yield made
    assert refused == []


def row(page: Page, url: str) -> Any:
    """Returns the table row of the realm `url` on the admin's start page."""
    return page.locator("tbody tr", has=page.get_by_role("link", name=url, exact=True))


def publish(page: Page, source: Realm) -> None:
    """Publishes the source realm through the link in its row on the start page. Waits until the
    pages of the published realm are rendered."""
    page.goto("/_admin/")
    page.get_by_role("link", name=f"Publish {source.url}").click()
    if Realm.objects.filter(url=PUBLISHED).exists():
        page.get_by_role("button", name=f"Publish again to {PUBLISHED}").click()
    else:
        page.get_by_label("A new URL").fill(PUBLISHED)
        page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("tbody tr").first).to_contain_text("2 of 2 replicas", timeout=SHOWN_MS)
    expect(page.locator("tbody tr").first).to_contain_text("done after", timeout=SHOWN_MS)


def test_an_operator_publishes_sees_faults_clears_and_rolls_back(
    fleet: Cluster, page: Page, source: Realm
) -> None:
    fleet.start_worker()
    publish(page, source)
    page.goto("/_admin/")
    expect(page.locator(".verdict")).to_contain_text("All 2 replicas are current")

    # A sidecar stops. The start page shows the fault and what to do. When the sidecar runs again,
    # the page shows no fault.
    b = fleet.replicas[1]
    b.kill("sidecar")
    expect(page.locator(".verdict")).to_contain_text("b has", timeout=SHOWN_MS)
    expect(page.locator(".problems")).to_contain_text("What to do:")
    expect(page.locator(".problems")).to_contain_text("listen_file_changes")
    b.start("sidecar")
    expect(page.locator(".verdict")).to_contain_text("All 2 replicas are current", timeout=SHOWN_MS)

    # A web service stops. The web service gets SIGTERM, because SIGKILL would leave its web workers
    # running.
    b.kill("web", signal.SIGTERM)
    b.running["web"].wait(20)
    expect(page.locator(".verdict")).to_contain_text(
        f"The web service of b does not answer at {b.address}", timeout=SHOWN_MS
    )
    b.start("web")
    expect(page.locator(".verdict")).to_contain_text("All 2 replicas are current", timeout=SHOWN_MS)

    # The operator clears caches with the keyboard, and sees each replica's answer.
    page.get_by_role("link", name=f"Clear the caches of {PUBLISHED}").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Clear the caches of {PUBLISHED}?")).to_be_visible()
    page.get_by_role("button", name="Clear on every replica").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_contain_text("No more answers", timeout=SHOWN_MS)
    for name in ("a", "b"):
        expect(page.locator("tbody tr", has_text=f"{name}✓ cleared")).to_have_count(1)

    # The operator rolls the published realm back.
    make.write(source, post__tsx=b"export const edition = 2;")
    publish(page, source)
    page.goto("/_admin/")
    page.get_by_role("link", name=f"Roll back {PUBLISHED}").click()
    expect(page.get_by_text("1 file differs:")).to_be_visible()
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("tbody tr").first).to_contain_text("done after", timeout=SHOWN_MS)
    assert Realm.objects.get(url=PUBLISHED).generation == 3


def test_a_failed_job_is_retried_by_a_click(fleet: Cluster, page: Page, source: Realm) -> None:
    make.publish(source, PUBLISHED)
    page.goto("/_admin/work/")
    expect(page.get_by_text("No worker is running.")).to_be_visible()
    job = ReindexJob.objects.get(realm_url=PUBLISHED)
    ReindexJob.objects.filter(pk=job.pk).update(
        status="failed", error="no replica answered", finished_at=timezone.now()
    )
    fleet.start_worker()
    page.reload()
    expect(page.get_by_text("no replica answered")).to_be_visible()
    page.get_by_role("button", name=f"Retry job {job.pk}").click()
    expect(page.get_by_text(f"Job {job.pk} is queued again.")).to_be_visible()
    wait_until(
        lambda: ReindexJob.objects.get(pk=job.pk).status == "done", "the retried job done", 60
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_has_a_serious_accessibility_problem(
    fleet: Cluster, page: Page, source: Realm, width: int
) -> None:
    fleet.start_worker()
    publish(page, source)
    Replica.objects.filter(name="b").update(missed=2)
    realm = Realm.objects.get(url=PUBLISHED)
    page.set_viewport_size({"width": width, "height": 900})
    for path in (
        "", "work/", "timeline/", "clear/", "clear/?all=on", f"realms/realm/{realm.pk}/publish/",
        f"realms/realm/{realm.pk}/remove/", f"realms/realm/{realm.pk}/why/a/",
    ):  # fmt: skip
        page.goto(f"/_admin/{path}")
        expect(page.locator(".realm-page").first).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} pixels wider than the screen"
        found = Axe().run(page, context=".realm-page")
        serious = [
            (each["id"], [node["html"] for node in each["nodes"]])
            for each in found.response["violations"]
            if each["impact"] in ("serious", "critical")
        ]
        assert serious == [], path


def test_the_admin_pages_work_without_scripts(
    fleet: Cluster, browser: Browser, source: Realm
) -> None:
    get_user_model().objects.create_superuser("root", password="root")
    context = browser.new_context(base_url=fleet.replicas[0].address, java_script_enabled=False)
    plain = context.new_page()
    plain.goto("/_admin/")
    plain.fill("input[name=username]", "root")
    plain.fill("input[name=password]", "root")
    plain.click("button[type=submit]")
    expect(plain.locator(".verdict")).to_be_visible()
    plain.get_by_role("link", name=f"Clear the caches of {source.url}").click()
    plain.get_by_role("button", name="Clear on every replica").click()
    # The page with the replicas' answers refreshes itself without scripts too.
    expect(plain.locator(".verdict")).to_contain_text("No more answers", timeout=SHOWN_MS)
