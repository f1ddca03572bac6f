"""Defines hatchling's build hooks, which add the requirements and the files outside the packages to
the wheel.

In the wheel, the TypeScript files are in `settings/typescript/`. Each file has the same path in
`settings/typescript/` as in the clone, so the relative paths between the files stay valid. The
wheel also has the npm files that the prerenderer loads, so that an installed server needs no
download.
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
#: The files of an npm package that must be distributed with its code.
_PAPERS = ("package.json", "LICENSE*")


class Requirements(MetadataHookInterface):
    """Makes the lines of requirements.txt the dependencies of the wheel."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the dependencies to the project's metadata."""
        lines = (Path(self.root) / "requirements.txt").read_text().splitlines()
        wanted = (line.partition("#")[0].strip() for line in lines)
        metadata["dependencies"] = [each for each in wanted if each]


class TypeScript(BuildHookInterface[Any]):
    """Adds the files that Deno needs, which are outside the Python packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tells hatchling which files go where in the wheel. Editable installations use the clone's
        files."""
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
    """Returns the files of npm packages that the prerenderer loads. None of these files imports
    another file of its own package. The files import other packages by name."""
    imports: dict[str, str] = json.loads((root / _IMPORT_MAP).read_text())["imports"]
    folder = (root / _IMPORT_MAP).parent
    # Not resolve(): Deno's folders of packages are symbolic links.
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
    """Installs the npm packages in the same way as `script/bootstrap` does. A source archive
    doesn't contain these packages."""
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
