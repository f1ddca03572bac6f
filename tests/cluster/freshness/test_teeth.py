"""Switches each safety mechanism off in turn, and checks that the test of the mechanism then fails.

`script/faults --break NAME` switches the mechanism NAME off in a whole fleet. A table in
docs/how-to/break-it.md names, for each mechanism, the test that fails without the mechanism.
"""

import os
import subprocess
import sys

import pytest

from settings.environment import BASE_DIR
from tests.faults.__main__ import BREAKS as NAMES
from tests.faults.broken import BREAKS, VARIABLE
from tests.support.minutes import takes_minutes

pytestmark = pytest.mark.cluster

CAUGHT_BY = {
    "no-stamp": "unit/serving/test_stamped_cache.py::"
    "test_a_value_that_changed_during_its_load_is_stale",
    "no-watermark": "unit/serving/test_stamped_cache.py::"
    "test_nothing_is_a_hit_while_the_board_is_not_live",
    "no-epoch": "db/listener/test_losing_the_connection.py::"
    "test_entries_changed_during_a_reconnect_are_stale_afterwards",
    "late-listen": "db/listener/test_going_live.py::"
    "test_a_listener_listens_then_starts_an_epoch_then_goes_live",
    "pin-ignored": "http/answers/test_cached_files.py::"
    "test_an_answer_has_its_generation_and_at_least_the_requested_one",
    "early-notify": "db/changes/test_emit_and_triggers.py::"
    "test_a_rolled_back_emit_announces_nothing_and_moves_no_key",
    "no-definition-guard": "db/definitions/test_invalidating.py::"
    "test_the_database_refuses_a_build_begun_before_an_invalidation",
    "unchecked-swap": "db/reindex/test_reindex_batches.py::"
    "test_a_swap_removes_older_pages_and_an_older_index_never_returns",
    "no-outbox": "db/reindex/test_reindex_retries.py::"
    "test_the_sweeper_sends_only_unfinished_work_without_a_worker",
    "late-edge": "http/caches/test_edge.py::"
    "test_a_slow_answer_is_kept_only_in_the_second_of_its_request",
}


def test_every_break_has_a_test_that_catches_it() -> None:
    assert set(CAUGHT_BY) == set(BREAKS) == set(NAMES)


@takes_minutes
@pytest.mark.parametrize("name", CAUGHT_BY)
def test_a_test_fails_when_its_mechanism_is_switched_off(name: str) -> None:
    """In an ordinary run, with the mechanism switched on, the same test passes."""
    here = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "tests.faults.broken_plugin",
            "-p", "no:cacheprovider", "--no-header", f"tests/{CAUGHT_BY[name]}",
        ],
        cwd=BASE_DIR,
        env={**os.environ, VARIABLE: name, "REALM_TEST_DATABASE": f"test_teeth_{here}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    said = ran.stdout + ran.stderr
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, said
    assert " error" not in said.splitlines()[-1], said
