"""What hatchling asks while it builds a wheel: the requirements and the files outside packages.

The TypeScript goes to `settings/typescript/` in the wheel. That folder has the shape of the clone's
root, so paths between its files are the same in both. The npm packages are in it too, as far as
the prerenderer loads them: an installation fetches nothing when it runs.
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
#: What a package must be accompanied by where it is given to others.
_PAPERS = ("package.json", "LICENSE*")


class Requirements(MetadataHookInterface):
    """The dependencies are the lines of requirements.txt."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the dependencies to the project's metadata."""
        lines = (Path(self.root) / "requirements.txt").read_text().splitlines()
        wanted = (line.partition("#")[0].strip() for line in lines)
        metadata["dependencies"] = [each for each in wanted if each]


class TypeScript(BuildHookInterface[Any]):
    """Adds the files outside the packages, for Deno."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tells the builder which files go where. An editable installation is a clone, and has
        them already."""
        if version == "editable":
            return
        root = Path(self.root)
        if not all(path.is_file() for path in loaded(root)):
            _install(root)
        for path in [*sources(root), *loaded(root), *papers(root)]:
            build_data["force_include"][str(path)] = f"{_TARGET}/{path.relative_to(root)}"


def sources(root: Path) -> list[Path]:
    """The project's own files for Deno, without tests."""
    found = (path for pattern in _SOURCES for path in sorted(root.glob(pattern)))
    return [path for path in found if path.is_file() and not path.stem.endswith("_test")]


def loaded(root: Path) -> list[Path]:
    """The files of npm packages that the prerenderer loads. Each is complete: it imports others by
    their names only."""
    imports: dict[str, str] = json.loads((root / _IMPORT_MAP).read_text())["imports"]
    folder = (root / _IMPORT_MAP).parent
    # Not resolve(): Deno's folders of packages are symbolic links.
    return sorted({Path(os.path.normpath(folder / each)) for each in imports.values()})


def papers(root: Path) -> list[Path]:
    """The licences of those packages, and what they say of themselves."""
    names = {re.match(r"[^/@]+|@[^/]+/[^/]+", _inside(path, root)) for path in loaded(root)}
    folders = [root / "node_modules" / name[0] for name in names if name]
    found = (path for folder in folders for paper in _PAPERS for path in folder.glob(paper))
    return sorted(found)


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root / "node_modules").as_posix()


def _install(root: Path) -> None:
    """Does what `script/bootstrap` does in a clone: a source archive has no npm packages."""
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
            "the build needs the network, or a clone in which script/bootstrap has run"
        )
