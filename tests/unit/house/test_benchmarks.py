"""Tests the benchmark harness: the order of runs, the ratios, the limits that results must keep,
and the page that shows the results."""

from functools import partial
from pathlib import Path

import pytest

from bench.support import page, peers, results
from bench.support.comparing import Bar, Case, Ratio, Table, WrongBytes, compare

SAID = """\
Running 2s test @ http://127.0.0.1:8000/a
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.50ms    2.00ms  30.00ms   87.50%
    Req/Sec    20.00k     1.00k   21.00k    88.99%
  Latency Distribution
     50%  900.00us
     75%    1.20ms
     90%    2.00ms
     99%    1.10s
  40000 requests in 2.00s, 90.00MB read
"""


def _noted(order: list[str], name: str) -> float:
    order.append(name)
    return 1.0


def test_runs_of_cases_alternate_and_reverse_their_order_each_time() -> None:
    order: list[str] = []
    cases = [Case(name, partial(_noted, order, name)) for name in "abc"]
    compare("t", unit="s", better="lower", runs=2, cases=cases)
    assert order == ["a", "b", "c", "c", "b", "a"]


def test_nothing_is_measured_if_one_case_fails_its_check() -> None:
    measured: list[str] = []

    def wrong() -> None:
        raise WrongBytes("b")

    cases = [Case("a", partial(_noted, measured, "a")), Case("b", lambda: 1.0, wrong)]
    with pytest.raises(WrongBytes):
        compare("t", unit="s", better="lower", runs=1, cases=cases)
    assert not measured


def test_a_ratio_is_the_median_of_the_ratios_of_each_run() -> None:
    # The expected ratio is 3, although the ratio of the two medians is 4.
    table = Table("t", "s", "lower", {"a": [30, 2, 4], "b": [10, 1, 1]}, "b")
    assert table.ratio("a", "b") == Ratio(3, 2, 4)
    assert table.ratio("a", "not installed") is None


@pytest.mark.parametrize(
    ("figure", "held"), [(None, None), (0.94, False), (0.95, True), (Ratio(1, 0.5, 2), True)]
)
def test_a_bar_without_a_figure_is_neither_held_nor_missed(
    figure: Ratio | float | None, held: bool | None
) -> None:
    assert Bar("b", figure, at_least=0.95).held is held


def test_the_output_of_wrk_is_parsed() -> None:
    quiet = peers.load_of(SAID + "Requests/sec:  20000.50\n")
    assert quiet == peers.Load(40000, 20000.5, 0.9, 1100, refused=0, lost=0)
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
    refused = "  Non-2xx or 3xx responses: 7\n"
    load = peers.load_of(f"{SAID}{errors}{refused}Requests/sec:  1.00\n")
    assert (load.refused, load.lost) == (7, 10)
    with pytest.raises(ValueError, match="requests in"):
        peers.load_of("wrk: unable to connect")


def test_the_page_shows_the_newest_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    table = Table("one URL", "ms", "lower", {"ours": [2.0, 3.0, 4.0]}, "ours")
    for figure in (3.0, 1.0):
        bars = [Bar("it is quick", figure, at_most=2)]
        results.append("serve", [table], bars, {"Varnish": "apt-get install varnish"}, "18.1")
    said = page.section("serve")
    assert "| it is quick | 1.00; at most 2 | held |" in said
    assert "| ours | 3.00 | 2.00–4.00 |" in said
    assert "postgres 18.1" in said and "Skipped: Varnish (apt-get install varnish)." in said
    assert "Not measured yet." in page.section("hostile")
