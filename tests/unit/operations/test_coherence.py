"""Tests how the command `verify_coherence` judges the answers of replicas.

An answer that differs from the database raises a suspicion, which begins a grace period. If the
answers are still wrong after the grace period, this is a violation. The command also reports which
share of all changes the replicas served within certain times, and how many nines this share has
(99.9 % has three nines).
"""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realms.coherence.rules import Observation, State, Verdict, difference, judge, nines, share_text

REALM = "http://ada.localhost:4201/"
STATE = State(REALM, 200, "new", None, True, low=5, high=7)
FOUND = Observation(10.0, 10.1, "b/1", REALM, 7, 200, "new", None, True)
OLD = replace(FOUND, digest="old", generation=4)


@pytest.mark.parametrize("generation", [5, 6, 7])
def test_an_answer_may_name_any_generation_that_had_its_bytes(
    generation: int,
) -> None:
    assert difference(STATE, replace(FOUND, generation=generation)) is None


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (OLD, "other bytes"),
        (replace(FOUND, generation=4), "generation 4, expected 5 or newer"),
        (replace(FOUND, generation=8), "only 7 is committed"),
        (replace(FOUND, generation=None), "generation 0, expected 5"),
        (replace(FOUND, status=404), "status 404, expected 200"),
        (replace(FOUND, public=False), "served as private, expected public"),
        (replace(FOUND, location="/elsewhere"), "other bytes"),
        (replace(FOUND, realm_url=None), "an answer of no realm"),
    ],
)
def test_the_difference_between_answer_and_state_is_named(found: Observation, why: str) -> None:
    assert why in (difference(STATE, found) or "")


def test_where_no_realm_exists_only_a_404_is_right() -> None:
    gone = State(None, 404, "any", None, True, 0, 0)
    nothing = replace(FOUND, realm_url=None, generation=None, status=404, digest="whatever")
    assert difference(gone, nothing) is None
    assert difference(gone, FOUND) is not None


def test_a_private_realm_served_as_public_is_a_violation() -> None:
    assert difference(replace(STATE, public=False), FOUND) == "served as public, expected private"


def test_a_wrong_answer_is_rechecked_until_the_grace_period_ends() -> None:
    assert judge(OLD, STATE, STATE, suspected_at=8.0, grace=3) is Verdict.AGAIN
    assert judge(OLD, STATE, STATE, suspected_at=7.0, grace=3) is Verdict.VIOLATION


def test_a_change_during_the_grace_period_restarts_the_grace_period() -> None:
    later = replace(STATE, digest="newest", low=8, high=8)
    # The replica's answer fits the state at the start of the grace period, or a later state. So the
    # replica isn't stuck, and gets time to reach the current state.
    assert judge(FOUND, later, STATE, suspected_at=0, grace=3) is Verdict.RESTART
    between = replace(FOUND, digest="between", generation=8)
    assert judge(between, replace(later, low=9, high=9), STATE, 0, 3) is Verdict.RESTART


def test_a_replica_that_stays_at_one_answer_is_a_violation() -> None:
    later = replace(STATE, digest="newest", low=8, high=8)
    assert judge(OLD, later, STATE, suspected_at=0, grace=3) is Verdict.VIOLATION


def test_a_new_generation_with_the_same_bytes_adds_no_grace_period() -> None:
    assert judge(OLD, replace(STATE, high=9), STATE, 0, 3) is Verdict.VIOLATION


def test_a_generation_that_was_never_committed_is_a_violation() -> None:
    invented = replace(FOUND, generation=99)
    assert judge(invented, STATE, STATE, 0, 3) is Verdict.VIOLATION


@pytest.mark.parametrize(
    ("seen", "total", "count"),
    [
        (0, 10, 0),
        (9, 10, 1),
        (10, 10, 1),
        (99, 99, 1),
        (100, 100, 2),
        (98, 100, 1),
        (99, 100, 2),
        (1999, 2000, 3),
        (9, 9, 0),
        (1_000_000, 1_000_000, 6),
    ],
)
def test_no_more_nines_are_counted_than_the_sample_can_show(
    seen: int, total: int, count: int
) -> None:
    assert nines(seen, total) == count


@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_k_nines_mean_at_most_one_miss_in_ten_to_the_power_of_k(case: tuple[int, int]) -> None:
    seen, total = case
    k = nines(seen, total)
    assert (total - seen) * 10**k <= total
    assert 10**k <= total
    assert max(total - seen, 1) * 10 ** (k + 1) > total
    assert (seen == total) == share_text(seen, total).startswith("100 %")


@pytest.mark.parametrize(
    ("seen", "total", "text"),
    [
        (1999, 2000, "99.95 %, three nines"),
        (0, 0, "no changes seen"),
        (1, 1, "100 %, no nines (the maximum for 1 change)"),
        (358, 358, "100 %, two nines (the maximum for 358 changes)"),
        (2, 3, "66.66 %, no nines"),
        (0, 3, "0 %, no nines"),
        (99_999, 100_000, "99.999 %, five nines"),
        (999_999, 1_000_000, "99.9999 %, 6 nines"),
    ],
)
def test_a_share_is_written_in_words_and_rounded_down(seen: int, total: int, text: str) -> None:
    assert share_text(seen, total) == text
