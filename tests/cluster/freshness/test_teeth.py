"""The tests notice what they should: each mechanism is switched off in turn, and its test must
fail.

`script/faults --break NAME` switches off the same in a whole fleet; docs/how-to/break-it.md has
the table of what catches which.
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
    "test_a_load_that_a_change_overtakes_arrives_stale",
    "no-watermark": "unit/serving/test_stamped_cache.py::"
    "test_nothing_is_a_hit_while_nobody_vouches_for_the_board",
    "no-epoch": "db/listener/test_losing_the_connection.py::"
    "test_what_it_missed_while_it_was_away_is_stale_when_it_is_back",
    "late-listen": "db/listener/test_going_live.py::"
    "test_it_listens_then_begins_an_epoch_then_goes_live_with_its_ping",
    "pin-ignored": "http/answers/test_cached_files.py::"
    "test_an_answer_has_its_generation_and_at_least_the_requested_one",
    "early-notify": "db/changes/test_emit_and_triggers.py::"
    "test_what_is_rolled_back_is_never_announced_and_moves_no_board",
    "no-definition-guard": "db/definitions/test_invalidating.py::"
    "test_a_build_begun_before_an_invalidation_is_refused_by_the_database",
    "unchecked-swap": "db/reindex/test_reindex_batches.py::"
    "test_a_swap_removes_older_pages_and_an_older_index_never_returns",
    "no-outbox": "db/reindex/test_reindex_retries.py::"
    "test_the_sweeper_sends_what_is_owed_and_has_no_worker_and_nothing_else",
    "late-edge": "http/caches/test_edge.py::"
    "test_an_answer_is_shown_in_the_second_in_which_it_was_asked_for",
}


def test_every_break_has_a_test_that_catches_it() -> None:
    assert set(CAUGHT_BY) == set(BREAKS) == set(NAMES)


@takes_minutes
@pytest.mark.parametrize("name", CAUGHT_BY)
def test_what_is_switched_off_is_missed_by_its_test(name: str) -> None:
    """The test passes in the ordinary run, and fails in this one."""
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
