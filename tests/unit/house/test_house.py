"""Limits the size of modules, functions and folders, so that each has only one subject."""

import ast
from collections import Counter
from pathlib import Path

from settings.environment import BASE_DIR

PACKAGES = ("notifications", "definitions", "reindex", "realms", "settings")
#: In these packages, modules and folders have limits, but functions may be long.
BESIDE = ("tests", "bench")


def modules(*packages: str) -> list[Path]:
    paths = (path for package in packages for path in (BASE_DIR / package).rglob("*.py"))
    return [path for path in paths if "migrations" not in path.parts]


def test_no_module_has_more_than_400_lines() -> None:
    found = modules(*PACKAGES, *BESIDE)
    assert [path for path in found if len(path.read_text().splitlines()) > 400] == []


def test_no_function_has_more_than_45_lines() -> None:
    long = [
        f"{path.relative_to(BASE_DIR)}:{node.lineno} {node.name}"
        for path in modules(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= 45
    ]
    assert long == []


def test_no_folder_has_more_than_15_modules() -> None:
    found = modules(*PACKAGES, *BESIDE)
    counts = Counter(path.parent for path in found if path.name != "__init__.py")
    assert [folder for folder, count in counts.items() if count > 15] == []
