"""docs/reference/failures.md names tests that exist."""

import ast
import re

from settings.processes import BASE_DIR

PAGE = BASE_DIR / "docs" / "reference" / "failures.md"


def test_every_failure_names_a_mechanism_and_tests_that_exist() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    failures = [row for row in rows if not row.startswith("| what happened")]
    assert len(failures) > 30
    for row in failures:
        _, _, mechanism, shown_by, _ = row.split("|")
        named = re.findall(r"`(\w+\.py)::(\w+)`", shown_by)
        assert mechanism.strip() and named, row
        for file, test in named:
            tree = ast.parse((BASE_DIR / "tests" / file).read_text())
            tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in tests, f"{file} has no {test}"
