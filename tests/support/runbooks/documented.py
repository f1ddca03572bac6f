"""Finds the commands that the documentation's pages tell a reader to run."""

import re
from dataclasses import dataclass
from pathlib import Path

from settings.environment import BASE_DIR

#: All pages except those in docs/decisions. The commands in docs/decisions only show how
#: measurements were made, and readers needn't run these commands.
PAGES = sorted([
    *(BASE_DIR / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *(page for page in BASE_DIR.glob("docs/**/*.md") if page.parent.name != "decisions"),
])  # fmt: skip
#: A text of a page is a command only if it begins with one of these texts.
HEADS = (
    "deploy/manage", "manage.py", "script/", ".venv/bin/", "python3", "realm-server", "realm-web",
    "celery", "django-admin", "systemctl", "journalctl", "curl", "pip", "docker", "psql", "cp",
    "/opt/",
)  # fmt: skip
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


@dataclass(frozen=True)
class Command:
    """A command (`line`), and the file name of the page that has it."""

    page: str
    line: str


def commands(page: Path) -> list[Command]:
    """Returns the commands of a page, both those in indented lines and those between backticks.
    Leaves out the commands in fenced blocks, because `runbook.py` runs these. Also leaves out names
    of programs without arguments, except those of scripts."""
    text = _FENCED.sub("", page.read_text())
    alone = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    within = [" ".join(span.split()) for span in _SPAN.findall(text)]
    found = [re.sub(r"\s+#.*", "", line) for line in [*alone, *within]]
    return [
        Command(page.name, line)
        for line in dict.fromkeys(found)
        if line.startswith(HEADS) and (" " in line or re.match(r"script/\w", line))
    ]


def fenced(page: Path) -> bool:
    """Returns whether a page has fenced blocks that say on which hosts they run."""
    return re.search(r"^```sh ", page.read_text(), re.MULTILINE) is not None
