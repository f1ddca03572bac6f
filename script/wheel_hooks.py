"""Defines two hooks of hatchling, the program that builds the wheel. One hook adds the requirements
to the wheel, the other hook adds the files that Deno needs.

In the wheel, the TypeScript files are in `settings/typescript/`. Each file has the same path in
`settings/typescript/` as in the clone, so the relative paths between the files stay valid. The
wheel also has the npm files that the prerenderer (the Deno process that renders cards) loads, so
that an installed server needs no download.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from deno import find_deno_bin
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_TARGET = "settings/typescript"
_IMPORT_MAP = "reindex/deno/import_map.json"
_SOURCES = ("deno.json", "deno.lock", "card_library/*", "reindex/deno/*")
#: The files of an npm package that must be distributed together with the package's code.
_PAPERS = ("package.json", "LICENSE*")


class Requirements(MetadataHookInterface):
    """Copies the requirements in requirements.txt to the wheel's dependencies."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the dependencies to the project's metadata."""
        lines = (Path(self.root) / "requirements.txt").read_text().splitlines()
        wanted = (line.partition("#")[0].strip() for line in lines)
        metadata["dependencies"] = [each for each in wanted if each]


class TypeScript(BuildHookInterface[Any]):
    """Adds the files that Deno needs to the wheel. These files are outside the Python packages, so
    hatchling doesn't add them itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tells hatchling which files to add, and their paths in the wheel. Adds nothing for an
        editable installation, which uses the clone's files."""
        if version == "editable":
            return
        root = Path(self.root)
        if not all(path.is_file() for path in loaded(root)):
            _install(root)
        for path in [*sources(root), *loaded(root), *papers(root)]:
            build_data["force_include"][str(path)] = f"{_TARGET}/{path.relative_to(root)}"


def sources(root: Path) -> list[Path]:
    """Returns the project's own files for Deno, without tests."""
    found = (path for pattern in _SOURCES for path in sorted(root.glob(pattern)))
    return [path for path in found if path.is_file() and not path.stem.endswith("_test")]


def loaded(root: Path) -> list[Path]:
    """Returns the npm files that the prerenderer loads. The import map lists all these files,
    because they import each other only by the names in the import map, and never by a path."""
    imports: dict[str, str] = json.loads((root / _IMPORT_MAP).read_text())["imports"]
    folder = (root / _IMPORT_MAP).parent
    # In the wheel, the files must have the same paths as in the import map. `Path.resolve` would
    # change these paths, because Deno's folders of packages are symbolic links.
    return sorted({Path(os.path.normpath(folder / each)) for each in imports.values()})


def papers(root: Path) -> list[Path]:
    """Returns the licences and the package.json files of the npm packages in the wheel."""
    names = {re.match(r"[^/@]+|@[^/]+/[^/]+", _inside(path, root)) for path in loaded(root)}
    folders = [root / "node_modules" / name[0] for name in names if name]
    found = (path for folder in folders for paper in _PAPERS for path in folder.glob(paper))
    return sorted(found)


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root / "node_modules").as_posix()


def _install(root: Path) -> None:
    """Installs the npm packages, as `script/bootstrap` does. A build from a source archive needs
    this, because the archive doesn't contain these packages."""
    environment = {
        "DENO_TLS_CA_STORE": "mozilla,system",
        "DENO_NO_UPDATE_CHECK": "1",
        "NO_COLOR": "1",
        **os.environ,
    }
    done = subprocess.run(
        [find_deno_bin(), "install", "--quiet", "--frozen"], cwd=root, env=environment, check=False
    )
    missing = [_inside(path, root) for path in loaded(root) if not path.is_file()]
    if done.returncode or missing:
        raise RuntimeError(
            f"the npm packages in deno.lock could not be fetched (missing: {missing}); "
            "the build needs the network, or a clone that script/bootstrap has prepared"
        )
