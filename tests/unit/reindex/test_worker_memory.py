"""Tests that a worker switches off Python's cyclic garbage collection while it works on a task."""

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from reindex import tasks
from reindex.jobs import turns
from reindex.models import WantedDefinitions


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_collection_is_off_during_a_task_and_on_after_it(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    collecting: list[bool] = []

    def do(*_: Any) -> None:
        collecting.append(gc.isenabled())
        if fails:
            raise RuntimeError("a bug")

    piece = WantedDefinitions(module_url="http://localhost:4201/a/b.ts", owner="ada")
    monkeypatch.setattr(turns, "take", lambda: piece)
    monkeypatch.setattr(tasks, "Turn", lambda *_: SimpleNamespace(end=lambda: None))
    monkeypatch.setattr(tasks, "_do", do)
    if fails:
        with pytest.raises(RuntimeError):
            tasks.work()
    else:
        assert tasks.work()
    assert collecting == [False]
    assert gc.isenabled()
