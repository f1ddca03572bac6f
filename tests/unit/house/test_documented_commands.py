"""Tests that each documented command is run by a test, or has an entry in a table that says why no
test runs it."""

from pathlib import Path

import pytest

from tests.support.runbooks.coverage_of_docs import (
    ASKED,
    ELSEWHERE,
    IN_CLONE,
    NOT_HERE,
    RUN,
    documented,
    text_of,
)
from tests.support.runbooks.documented import PAGES, commands, fenced


def test_a_test_runs_every_documented_command_or_a_reason_is_given() -> None:
    elsewhere = {command for ran in ELSEWHERE.values() for command in ran}
    covered = RUN.keys() | ASKED.keys() | IN_CLONE.keys() | elsewhere | NOT_HERE.keys()
    assert documented() - covered == set(), "missing in tests/support/runbooks/coverage_of_docs.py"
    assert covered - documented() == set(), "no page has these commands any more"


def test_a_command_within_a_sentence_or_a_block_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\nDo `manage.py new_command\n--now`, then\n\n    script/other --x  # why\n\n"
        "```sh host1\ndeploy/manage followed\n```\n"
    )
    assert [each.line for each in commands(page)] == [
        "script/other --x", "manage.py new_command --now"
    ]  # fmt: skip
    assert fenced(page)


def test_every_page_with_host_blocks_is_run_as_a_runbook() -> None:
    followed = text_of("tests/cluster/documented/test_three_hosts.py") + text_of(
        "tests/support/runbooks/fleet_of_hosts.py"
    )
    for page in PAGES:
        assert not fenced(page) or f'"{page.name}"' in followed, page.name


@pytest.mark.parametrize("path", ELSEWHERE)
def test_the_file_named_for_a_command_contains_it(path: str) -> None:
    text = text_of(path)
    assert [each for each, words in ELSEWHERE[path].items() if words not in text] == []
