"""Tests cards and modules that hang. A job waits for them for a limited time. If it is proven that
a card or module hangs, it is stored as known to hang, and later jobs don't wait for it."""

import os
import signal
import threading
import time
from datetime import timedelta
from typing import Any

import psutil
import pytest
from django.utils import timezone
from pytest_django import Settings

from realms.api.reindex_views import reindex
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs import turns
from reindex.models import Hang, ReindexBatch, ReindexJob
from reindex.prerender import hangs, host, sandbox
from reindex.prerender.hangs import Stopwatch
from reindex.prerender.module_builder import ModuleBuilder
from reindex.prerender.pool import renderers
from tests.support import make
from tests.support.gates import in_thread
from tests.support.rendering import index_of, work_off

URL = "http://localhost:4201/mallory/shown/"
CARD = """\
import { Card, string } from "@realm/base";
export class Note extends Card {
  static fields = { title: string() };
  static isolated = ({ card }) => { BODY; return <p>{card.title}</p>; };
}
"""
LOOP = 'while (card.title.startsWith("loop"))'
FILL = (
    'if (card.title.startsWith("fill")) { const all = []; for (;;) all.push(Array(1e6).fill(1)); }'
)


def module(body: str = "", before: str = "") -> bytes:
    """Returns a card module. `body` runs when a card is rendered, and `before` runs when the module
    is loaded."""
    return (before + CARD.replace("BODY", body)).encode()


def note(title: str, of: str = "./note") -> bytes:
    return make.card(of, "Note", title=title)


Sent = list[Any]


@pytest.fixture
def mallory(web: Any, settings: Settings) -> Any:
    sync_base_realm()
    settings.REALM_RENDER_SECONDS = 2
    return make.user("mallory")


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats every process that exceeds its time limit as busy, so that a single exceeded limit
    proves a hang. Without this, a loop on a loaded machine may get too little processor time for
    the proof."""
    monkeypatch.setattr(hangs, "BUSY", 0)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that gets an entry for each process that is stopped because it hangs."""
    ended: list[str] = []
    run = sandbox.run

    def counting(*arguments: Any, **named: Any) -> Any:
        stopped = run(*arguments, **named)
        if stopped is not None:
            ended.append("stopped")
        return stopped

    monkeypatch.setattr(sandbox, "run", counting)
    return ended


def realm_of(mallory: Any, files: dict[str, bytes], name: str = "bad") -> Realm:
    return make.source(f"http://localhost:4201/mallory/{name}/", mallory, files)


def shown(source: Realm, sent: Sent, url: str = URL) -> dict[str, Any]:
    """Publishes and renders a realm. Returns each card's HTML, or its error message, by the card's
    path."""
    make.publish(source, url)
    work_off(sent)
    assert ReindexJob.objects.filter(realm_url=url)[0].status == "done"
    return {
        path: card.error["message"] if card.error else card.html["isolated"]
        for path, card in index_of(url).items()
    }


def test_a_card_that_is_known_to_hang_costs_no_second_wait(
    mallory: Any, sent: Sent, limits: list[str], processor: None
) -> None:
    files = {"note.tsx": module(LOOP), "a.json": note("loop"), "b.json": note("fine")}
    source = realm_of(mallory, files)
    first = shown(source, sent)
    assert (first["a"], first["b"]) == ("Rendering took longer than 2000 ms", "<p>fine</p>")
    assert len(limits) == 1
    make.write(source, b__json=note("fine too"))
    second = shown(source, sent)
    assert "longer than 2 s at 20" in second["a"] and "in a full reindex" in second["a"]
    assert second["b"] == "<p>fine too</p>"
    assert len(limits) == 1
    # After a change to the card or its module, the card is no longer known to hang.
    make.write(source, a__json=note("loops"))
    shown(source, sent)
    assert len(limits) == 2
    make.write(source, note__tsx=module(LOOP.replace("loop", "never")))
    assert shown(source, sent)["a"] == "<p>loops</p>"
    assert len(limits) == 2


def test_a_module_that_is_known_to_hang_is_not_loaded_by_another_realm(
    mallory: Any, sent: Sent, limits: list[str], processor: None
) -> None:
    files = {
        "note.tsx": module(before='import "./slow";'),
        "slow.ts": b"for (;;);",
        "a.json": note("a"),
        "b.json": note("b"),
    }
    source = realm_of(mallory, files)
    assert all("longer than 2000 ms to load" in said for said in shown(source, sent).values())
    assert len(limits) == 1
    elsewhere = shown(source, sent, "http://localhost:4201/mallory/copy/")
    assert all("to load at 20" in said for said in elsewhere.values()), elsewhere
    assert len(limits) == 1
    # After a change to the imported module, the module is no longer known to hang.
    make.write(source, slow__ts=b"export {};")
    assert shown(source, sent) == {"a": "<p>a</p>", "b": "<p>b</p>"}


def test_a_module_that_hangs_is_built_once_for_many_requests(mallory: Any, processor: None) -> None:
    realm_of(mallory, {"slow.ts": b"for (;;);"})
    builder = ModuleBuilder()
    located = builder.locate("http://localhost:4201/mallory/bad/slow.ts")
    assert located is not None
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        error = builder.build(located).error
        seconds.append(time.monotonic() - began)
        assert error is not None and error["status"] == 504
    assert seconds[0] >= 2 > max(seconds[1:])


def test_a_full_reindex_or_a_job_a_day_later_retries_hanging_cards(
    mallory: Any, sent: Sent, limits: list[str], processor: None
) -> None:
    source = realm_of(mallory, {"note.tsx": module(LOOP), "a.json": note("loop")})
    shown(source, sent)
    reindex(URL, full=True)
    work_off(sent)
    assert len(limits) == 2
    Hang.objects.update(seen_at=timezone.now() - timedelta(days=1, minutes=1))
    shown(source, sent)
    assert len(limits) == 3
    assert Hang.objects.count() == 1


def test_a_module_that_waits_for_ever_is_known_to_hang_the_second_time(
    mallory: Any, sent: Sent, limits: list[str]
) -> None:
    """Code that waits for ever uses no processor time, and neither does code that waits for a slow
    replica. So one time-out doesn't prove that the code hangs."""
    wait = "await new Promise(() => {});\n"
    files = {"note.tsx": module(before=wait), "a.json": note("a"), "b.json": note("b")}
    source = realm_of(mallory, files)
    for expected in (1, 2, 2, 2):
        assert "to load" in shown(source, sent)["a"]
        assert len(limits) == expected


def test_a_suspended_process_does_not_make_its_cards_known_to_hang(
    mallory: Any, sent: Sent, limits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"note.tsx": module(), **{f"{i}.json": note(f"{i}") for i in range(3)}}
    source = realm_of(mallory, files)
    acquire, start = renderers.acquire, host.start

    def stopped(process: host.Host | None) -> host.Host | None:
        if process is not None:
            os.kill(process.process.pid, signal.SIGSTOP)
            timer = threading.Timer(5, os.kill, (process.process.pid, signal.SIGCONT))
            timer.start()
        return process

    with monkeypatch.context() as patch:
        patch.setattr(renderers, "acquire", lambda *a: stopped(acquire(*a)))
        patch.setattr(host, "start", lambda *a: stopped(start(*a)))
        shown(source, sent)
    assert not Hang.objects.filter(signs__gte=2).exists()
    assert shown(source, sent) == {f"{i}": f"<p>{i}</p>" for i in range(3)}


def test_a_job_loses_at_most_its_budget_and_renders_the_other_cards(
    mallory: Any, sent: Sent, limits: list[str], settings: Settings
) -> None:
    settings.REALM_LOST_SECONDS = 5
    bad = {f"bad{i:02}.json": note(f"loop {i}") for i in range(20)}
    good = {f"good{i}.json": note(f"{i}", "./plain") for i in range(3)}
    files = {"note.tsx": module(LOOP), "plain.tsx": module(), **bad, **good}
    source = realm_of(mallory, files)
    cards = shown(source, sent)
    assert [cards[f"good{i}"] for i in range(3)] == ["<p>0</p>", "<p>1</p>", "<p>2</p>"]
    # The time to start a process also counts as lost, so the number of stopped processes varies.
    assert 1 <= len(limits) <= 3
    told = "Not rendered: this job has lost"
    assert sum(cards[f"bad{i:02}"].startswith(told) for i in range(20)) == 20 - len(limits)
    assert f"other cards of {URL}note" in cards["bad19"]


def test_cards_that_hang_in_different_modules_are_skipped_after_the_budget(
    mallory: Any, sent: Sent, limits: list[str], settings: Settings
) -> None:
    settings.REALM_LOST_SECONDS = 4
    files: dict[str, bytes] = {}
    for i in range(20):
        files[f"note{i}.tsx"] = module(before=f"for (;;);//{i}\n")
        files[f"c{i:02}.json"] = note("x", f"./note{i}")
    source = realm_of(mallory, files)
    cards = shown(source, sent)
    assert 2 <= len(limits) <= 4
    skipped = sum(said.startswith("Not rendered") for said in cards.values())
    assert skipped == 20 - len(limits)


def test_cards_that_exhaust_memory_are_skipped_after_the_budget(
    mallory: Any, sent: Sent, settings: Settings
) -> None:
    settings.REALM_LOST_SECONDS = 3
    # A card runs out of memory long before it reaches this time limit. So the job loses time only
    # to processes that run out of memory.
    settings.REALM_RENDER_SECONDS, settings.REALM_RENDER_MEMORY_MB = 60, 64
    bad = {f"bad{i:02}.json": note(f"fill {i}") for i in range(40)}
    source = realm_of(mallory, {"note.tsx": module(FILL), **bad})
    began = time.monotonic()
    cards = shown(source, sent)
    lost = ReindexJob.objects.filter(realm_url=URL)[0].lost_seconds
    print(f"{time.monotonic() - began:.1f} s, lost {lost:.1f} s")
    # All cards use one module, so the job skips the rest soon after it has lost REALM_LOST_SECONDS.
    assert 3 <= lost < 30
    assert any(said.startswith("Not rendered") for said in cards.values())


@pytest.mark.timeout(60)
def test_a_batch_that_killed_its_process_is_halved_if_others_wait(
    mallory: Any, sent: Sent, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """A turn is the time that a worker spends on one batch. Here the turn ends before the batch's
    first result, because other owners wait. If the next turn got the whole batch again, it would
    end in the same way, and so on for ever."""
    settings.REALM_RENDER_MEMORY_MB, settings.REALM_LOST_SECONDS = 64, 2
    monkeypatch.setattr(turns, "SLICE_SECONDS", 0)
    monkeypatch.setattr(turns, "LOOK_SECONDS", 0)
    monkeypatch.setattr(turns, "others_wait", lambda *_, **__: True)
    monkeypatch.setattr("reindex.tasks.LOOK_SECONDS", 0)
    cards = {f"c{i}.json": note("fill" if i == 1 else f"{i}") for i in range(2)}
    source = realm_of(mallory, {"note.tsx": module(FILL), **cards})
    make.publish(source, URL)
    for _ in range(40):
        if not work_off(sent):
            break
    job = ReindexJob.objects.get(realm_url=URL)
    assert (job.status, job.errors, job.rendered) == ("done", 1, 2)
    assert ReindexBatch.objects.filter(job=job).count() >= 2


def test_a_stopwatch_does_not_count_paused_time() -> None:
    watch = Stopwatch()
    watch.start(psutil.Process().pid)
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    wall, busy = watch.lap()
    assert wall >= 0.3 and busy >= 0.28
    with watch.paused():
        in_thread(threading.Event().wait, 0.3).result(10)
    assert watch.lap()[0] < 0.3
