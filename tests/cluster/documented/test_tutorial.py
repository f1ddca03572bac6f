"""Follows docs/authors/tutorial.md from start to end in a fresh clone."""

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from settings.environment import BASE_DIR
from tests.support.cluster import free_ports, wait_until
from tests.support.minutes import takes_minutes
from tests.support.runbooks.clone import Clone, fresh_clone, shell_lines
from tests.support.web import ask

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PAGE = BASE_DIR / "docs/authors/tutorial.md"
HEADS = ("script/demo", "export", "mkdir", "cat", "sed", ".venv/bin/")


@contextmanager
def demo(clone: Clone, command: str, log: Path) -> Iterator[int]:
    """Starts the server with `command`, a command of the tutorial. Yields the server's port. Stops
    the server at the end of the block."""
    (port,) = free_ports(1)
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command} --port {port}"], cwd=clone.folder,
            env=clone.environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "Everything is up" in log.read_text(), "the demo is up", 240)
        found = re.search(r"http://localhost:(\d+)", log.read_text())
        assert found is not None
        yield int(found[1])
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0, log.read_text()


@takes_minutes
def test_the_tutorial_leads_to_a_site_and_its_mistakes_are_named(tmp_path: Path) -> None:
    start, *commands = shell_lines(PAGE, HEADS)
    assert start == "script/demo"
    with fresh_clone() as clone, demo(clone, start, tmp_path / "demo.log") as port:
        films = clone.folder / "sites/films"
        shown: list[str] = []
        published = 0
        for command in commands:
            command = command.replace("localhost:4201", f"localhost:{port}")
            if command.startswith("export"):
                name, _, value = command.removeprefix("export ").partition("=")
                clone.environment[name] = value
            elif " check " in command and "titel" in (films / "film.tsx").read_text():
                refused = clone.attempt(command)
                assert refused.returncode == 1
                assert "Property 'titel' does not exist" in refused.stdout
            elif "unpublish_realm" in command:
                # `unpublish_realm` asks for confirmation only on a terminal.
                clone.run(f"script -qec {shlex.quote(command)} /dev/null", answer="y\n")
            elif "publish_realm" in command:
                published += 1
                done = clone.attempt(command)
                if "minuts" in (films / "film/noup.json").read_text():
                    assert 'Film has no field "minuts"; did you mean minutes?' in done.stdout
                    assert done.returncode == 1
                else:
                    assert done.returncode == 0, done.stdout
                shown.append(ask(port, "GET", f"http://films.localhost:{port}/").text)
            else:
                clone.run(command)
        assert published == 4
        assert all("Small Island Films" in page for page in shown)
        assert ["ticket" in page for page in shown] == [False, True, True, True]
        assert ask(port, "GET", f"http://films.localhost:{port}/").status == 404
