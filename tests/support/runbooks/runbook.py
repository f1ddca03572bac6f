"""Runs the fenced blocks of a runbook, a Markdown page of commands for operators.

The info string of a block, which follows the opening backticks, says on which hosts the block runs.
A block `sh host1 host2` runs on both hosts. A block `ini host2 /etc/file` is the content of the
file /etc/file on host 2. A block `sh host1 redis` runs on host 1, but only if the message broker is
Redis.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.runbooks.hosts import Host

_FENCE = re.compile(r"^```(\S+) ?(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BROKERS = ("rabbitmq", "redis")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `words` has the words of the block's info string, without the
    language."""

    language: str
    words: tuple[str, ...]
    text: str

    @property
    def hosts(self) -> list[str]:
        """The hosts on which the block runs."""
        return [word for word in self.words if word.startswith(("host", "visitor"))]

    @property
    def path(self) -> str:
        """The path of the file that the block's text is written to; empty if the block has
        commands."""
        return next((word for word in self.words if word.startswith("/")), "")

    @property
    def broker(self) -> str:
        """The only broker with which the block runs; empty if the block runs with every broker."""
        return next((word for word in self.words if word in BROKERS), "")


def blocks(page: Path, heading: str = "") -> list[Block]:
    """Returns the blocks of a page in order, or only the blocks below a heading."""
    text = page.read_text()
    if heading:
        level = heading.partition(" ")[0]
        _, found, text = text.partition(f"\n{heading}\n")
        assert found, f"{page.name} has no {heading!r}"
        text = re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return [
        Block(language, tuple(words.split()), body)
        for language, words, body in _FENCE.findall(text)
    ]


@dataclass
class Runner:
    """Runs the blocks of pages. In each block, the runner replaces each word that is a key of
    `words` by the key's value. `instead` contains replacements for commands. Each key is a regular
    expression. If a line matches the key, the runner calls the key's function with the host and the
    line. Instead of the line, the runner runs the script that the function returns. If the function
    returns None, the runner runs nothing."""

    hosts: Mapping[str, Host]
    words: Mapping[str, str]
    instead: Mapping[str, Callable[[Host, str], str | None]]
    broker: str
    used: set[str] = field(default_factory=set)
    _folder: dict[str, str] = field(default_factory=dict)

    def follow(self, page: Path, heading: str = "") -> str:
        """Runs the blocks of a page, and returns their output."""
        return "".join(self.do(block) for block in blocks(page, heading))

    def do(self, block: Block) -> str:
        """Runs one block on each of the block's hosts in turn, and returns the output."""
        if block.broker not in ("", self.broker):
            return ""
        pattern = r"\b(" + "|".join(self.words) + r")\b"
        text = re.sub(pattern, lambda word: self.words[word[0]], block.text)
        said = ""
        for name in block.hosts:
            if block.path:
                self.hosts[name].write(block.path, text)
            else:
                said += self._run(self.hosts[name], text)
        return said

    def _run(self, host: Host, text: str) -> str:
        said, script = "", ""
        for line in [*text.splitlines(), None]:
            pattern = next((each for each in self.instead if re.search(each, line or "")), None)
            if line is not None and pattern is None:
                script += f"{line}\n"
                continue
            said += self._script(host, script)
            script = ""
            if line is not None and pattern is not None:
                self.used.add(pattern)
                said += self._script(host, self.instead[pattern](host, line) or "")
        return said

    def _script(self, host: Host, script: str) -> str:
        if not script:
            return ""
        cwd = self._folder.get(host.name, "/")
        for line in script.splitlines():
            if line.startswith("cd "):
                self._folder[host.name] = shlex.split(line)[1]
        return host.run(script, cwd=cwd)
