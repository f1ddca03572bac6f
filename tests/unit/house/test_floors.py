"""Tests that no package imports a package of a higher floor. A floor is a layer of the
architecture. From bottom to top, the floors are the packages notifications, definitions, reindex
and realms. All other packages are above the floors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings.environment import BASE_DIR

FLOORS = ["notifications", "definitions", "reindex", "realms"]
#: The packages above all floors. They may import the packages of every floor, but no floor may
#: import them.
ABOVE = ["settings", "tests", "bench", "script", "examples"]


def _modules(package: str) -> list[Path]:
    return sorted((BASE_DIR / package).rglob("*.py"))


def _imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yields the line and the top-level package of every import. Imports are import statements,
    calls of import_module, import_string and __import__, and the `dependencies` and `run_before` of
    migrations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rsplit(".", 1)[-1]
            if name in ("import_module", "__import__", "import_string"):
                literal = node.args[0] if node.args else None
                if isinstance(literal, ast.Constant):
                    yield node.lineno, str(literal.value).split(".")[0]
        elif isinstance(node, ast.Assign):
            targets = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if targets & {"dependencies", "run_before"} and isinstance(node.value, ast.List):
                for each in node.value.elts:
                    if isinstance(each, ast.Tuple) and isinstance(each.elts[0], ast.Constant):
                        yield node.lineno, str(each.elts[0].value)


def _climbing(source: str, package: str) -> list[tuple[int, str]]:
    forbidden = {*FLOORS[FLOORS.index(package) + 1 :], *ABOVE}
    return [
        (line, name)
        for line, name in _imported(ast.parse(source), package)
        if name in forbidden and name != package
    ]


@pytest.mark.parametrize("package", FLOORS)
def test_a_floor_imports_only_from_the_floors_below_it(package: str) -> None:
    modules = _modules(package)
    assert modules, f"{package} has no modules: this test looks in the wrong place"
    climbing = [
        f"{path.relative_to(BASE_DIR)}:{line} imports {name}"
        for path in modules
        for line, name in _climbing(path.read_text(), package)
    ]
    assert climbing == []


def test_every_package_of_the_project_has_a_floor() -> None:
    packages = {path.parent.name for path in BASE_DIR.glob("*/__init__.py")}
    assert packages <= {*FLOORS, *ABOVE}


@pytest.mark.parametrize(
    "source",
    [
        "import realms",
        "import os, realms.models",
        "import realms.models as below",
        "from realms import models",
        "from realms.models import Realm",
        "def late():\n    from realms.models import Realm",
        "class Late:\n    def ready(self):\n        import realms",
        "if TYPE_CHECKING:\n    from realms.models import Realm",
        "import_module('realms.models')",
        "importlib.import_module('realms.models')",
        "class Migration:\n    dependencies = [('reindex', '0001'), ('realms', '0001_initial')]",
        "from tests import make",
        "import settings.processes",
    ],
)
def test_an_import_of_a_higher_floor_is_found_in_any_form(source: str) -> None:
    assert _climbing(source, "reindex")


@pytest.mark.parametrize(
    "source",
    [
        "from django.conf import settings",
        "from . import jobs",
        "from .realms import nothing",
        "from reindex import jobs",
        "from definitions.lookup import DefinitionLookup",
        "import notifications.board",
        "class Migration:\n    dependencies = [('definitions', '0001_initial')]",
        "realms = 1",
    ],
)
def test_an_import_of_the_same_or_a_lower_floor_is_allowed(source: str) -> None:
    assert not _climbing(source, "reindex")
