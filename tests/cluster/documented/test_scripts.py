"""Runs the documented scripts in a fresh clone, without environment variables.

The clone has no virtual environment and no packages, as on the machine of somebody who has just
cloned the repository. The package indexes must be reachable.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.minutes import takes_minutes
from tests.support.runbooks.clone import Clone, fresh_clone
from tests.support.runbooks.coverage_of_docs import IN_CLONE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def clone() -> Iterator[Clone]:
    """Yields one clone for all tests, so each command finds the files that earlier commands have
    made."""
    with fresh_clone() as made:
        yield made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns an empty folder outside the clone."""
    return tmp_path_factory.mktemp("place")


@takes_minutes
@pytest.mark.parametrize("command", IN_CLONE)
def test_a_documented_script_succeeds_in_a_fresh_clone(
    command: str, clone: Clone, place: Path
) -> None:
    page = clone.folder / "docs/performance.md"
    before = page.read_text()
    clone.run(IN_CLONE[command].format(place=place), seconds=600)
    assert page.read_text() == before, "run bench.support.page and commit performance.md"
