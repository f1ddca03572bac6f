"""Tests that the documentation pages on failures and security mention only tests that exist."""

import ast
import re

import pytest

from settings.environment import BASE_DIR

REFERENCE = BASE_DIR / "docs" / "reference"


@pytest.mark.parametrize(("page", "rows"), [("failures.md", 30), ("security.md", 24)])
def test_every_row_names_a_mechanism_and_tests_that_exist(page: str, rows: int) -> None:
    text = (REFERENCE / page).read_text()
    table = text.partition("\n## Walls\n")[2].partition("\n## ")[0] or text
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    claims = [row for row in lines if not row.startswith("| what ")]
    assert len(claims) >= rows
    for row in claims:
        _, _, mechanism, shown_by, _ = row.split("|")
        named = re.findall(r"`(\w+\.py)::(\w+)`", shown_by)
        assert mechanism.strip() and named, row
        for file, test in named:
            (path,) = (BASE_DIR / "tests").rglob(file)
            tree = ast.parse(path.read_text())
            tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in tests, f"{file} has no {test}"
