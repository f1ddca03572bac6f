"""Makes a copy of this checkout that has only the files of a fresh clone, and runs commands in the
copy."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from settings.environment import BASE_DIR
from tests.support.servers.reaper import mark

#: Names of files and folders that a checkout may have and that no fresh clone has.
_MADE = shutil.ignore_patterns(
    ".venv", ".data", ".git", "node_modules", "__pycache__", "*.egg-info", "dist", "sites",
    ".*_cache", "compose.env",
)  # fmt: skip
#: The environment variables of this process that commands in the clone get too. They say how to
#: reach the package indexes, and set the language and the folder for temporary files.
_OF_THE_MACHINE = re.compile(
    r"(PIP_|UV_|NPM_|DENO_TLS|SSL_|.*_proxy$|LANG$|TMPDIR$)", re.IGNORECASE
)


@dataclass(frozen=True)
class Clone:
    """A clone's folder, and the environment variables of the commands that run there."""

    folder: Path
    environment: dict[str, str]

    def run(self, command: str, *, seconds: int = 300, answer: str = "") -> str:
        """Runs a command line in a shell and returns the output. Raises AssertionError if the
        command fails or prints a traceback. `answer` is the command's standard input."""
        done = self.attempt(command, seconds=seconds, answer=answer)
        assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}"
        assert "Traceback" not in done.stdout, f"{command}: {done.stdout}"
        return done.stdout

    def attempt(
        self, command: str, *, seconds: int = 300, answer: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command line in a shell. Returns its status and output, even if it fails."""
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, input=answer,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip


@contextmanager
def fresh_clone() -> Iterator[Clone]:
    """Makes a clone without the git history, and deletes the clone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="realm-clone-", ignore_cleanup_errors=True) as name:
        # If root runs the tests, the embedded Postgres, a server that the project starts, runs as
        # another user. This user must be able to enter the clone's folder.
        Path(name).chmod(0o755)
        folder = Path(name) / "realms"
        shutil.copytree(BASE_DIR, folder, ignore=_MADE, symlinks=True)
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        path = [each for each in os.environ["PATH"].split(":") if ".venv" not in each]
        theirs = {name: value for name, value in os.environ.items() if _OF_THE_MACHINE.match(name)}
        environment = {**theirs, "PATH": ":".join(path), "HOME": os.environ["HOME"], **mark()}
        yield Clone(folder, environment)


def shell_lines(page: Path, heads: tuple[str, ...]) -> Iterator[str]:
    """Yields commands from the indented blocks of a page. A command is a line that begins with one
    of `heads`. A command's here document is part of the command."""
    lines = iter(page.read_text().splitlines())
    for line in lines:
        command = line.removeprefix("    ")
        if command == line or not command.startswith(heads):
            continue
        end = re.search(r"<<'(\w+)'$", command)
        while end and not command.endswith(f"\n{end[1]}"):
            command += "\n" + next(lines).removeprefix("    ")
        yield command
