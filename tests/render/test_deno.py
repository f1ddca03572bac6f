"""Runs the TypeScript tests and the type checker with Deno."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from deno import find_deno_bin

from settings.environment import BASE_DIR

pytestmark = pytest.mark.cluster

SECONDS = 180


def deno(folder: Path, *arguments: str) -> None:
    """Runs Deno with its caches in `folder`, and asserts that Deno succeeds. A failed assertion
    shows Deno's output."""
    ran = run(folder, *arguments)
    assert ran.returncode == 0, f"deno {' '.join(arguments)}\n{ran.stdout}"


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [find_deno_bin(), *arguments],
        cwd=BASE_DIR,
        env={
            **os.environ,
            "DENO_DIR": str(folder),
            "DENO_NO_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )


def test_the_tests_of_the_prerenderer_pass(tmp_path: Path) -> None:
    deno(tmp_path, "test", "-A", "reindex/deno")


def test_the_prerenderer_and_the_card_library_pass_the_type_check(tmp_path: Path) -> None:
    deno(tmp_path, "check", "reindex/deno/host.ts", "reindex/deno/worker.ts", "card_library/mod.ts")


EXAMPLES = BASE_DIR / "examples"

#: An author's module with three mistakes in its template. Two fields are misspelt. The title of
#: `card.next` is read although `card.next` may be null.
NOTE = """\
import { Card, computed, linksTo, string } from "@realm/base";

export class Note extends Card {
  static fields = {
    title: string(),
    next: linksTo(() => Note),
    loud: computed((card: { title: string }) => card.title.toUpperCase()),
  };
  static isolated = this.template(({ card }) => (
    <h1>{card.title} {card.next?.loud} {card.titel} {card.next?.lod} {card.next.title}</h1>
  ));
}
"""


def test_an_authors_module_with_a_misspelt_field_fails_the_type_check(tmp_path: Path) -> None:
    (BASE_DIR / ".data").mkdir(exist_ok=True)
    # Deno finds the types of the packages only for a module in a folder of this repository.
    with TemporaryDirectory(dir=BASE_DIR / ".data") as folder:
        module = Path(folder) / "note.tsx"
        module.write_text(NOTE)
        ran = run(tmp_path, "check", "--config", str(EXAMPLES / "deno.json"), str(module))
    assert ran.returncode == 1
    for says in (
        "Property 'titel' does not exist",
        "Property 'lod' does not exist",
        "'card.next' is possibly 'null'",
        "Found 3 errors",
    ):
        assert says in ran.stdout, ran.stdout


def test_the_examples_pass_the_type_check_for_authors(tmp_path: Path) -> None:
    modules = [str(module) for module in sorted(EXAMPLES.glob("*/*.tsx"))]
    assert len(modules) > 20
    deno(tmp_path, "check", "--config", str(EXAMPLES / "deno.json"), *modules)
