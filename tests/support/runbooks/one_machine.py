"""docs/operations/three-hosts.md on one machine with systemd, which is host 1 and host 2 at once.

The page's commands run as they stand there: Debian's packages are installed, the checkout is
cloned, `script/bootstrap` fetches packages, systemd has the units. `instead` has what can't be:
NFS, for which this kernel has no part. Host 3 is named in the balancer's list and isn't there.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.runbooks.fleet_of_hosts import ADDRESSES, NAMES, WORDS, Fleet
from tests.support.runbooks.hosts import Host, checkout
from tests.support.runbooks.machine import Machine, machine
from tests.support.runbooks.runbook import Runner, blocks

#: Where the machine finds this checkout, as a repository with a commit and a tag on top of it.
REPOSITORY, RELEASE = "/mnt/repository", "next"
_WORDS = {**WORDS, "REPOSITORY": REPOSITORY, "RELEASE": RELEASE}
_SERVER = "/srv/realms/server"


@dataclass
class OneMachine:
    """The machine, its hosts, and what visitors ask them."""

    machine: Machine
    hosts: dict[str, Host]
    fleet: Fleet

    def run(self, command: str, *, check: bool = True) -> str:
        """What a command says there."""
        return self.hosts["host2"].run(command, cwd=_SERVER, check=check)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as systemd has it now."""
        return self.run(f"systemctl show {unit} --property {name} --value").strip()

    def follow(self, page: Path, heading: str = "") -> str:
        """Carries out a page's blocks for host 1 and host 2; what both are to do is done once."""
        said = ""
        for block in blocks(page, heading):
            here = [name for name in block.hosts if name in self.hosts]
            words = [word for word in block.words if word not in block.hosts]
            if here:
                said += self.fleet.runner.do(replace(block, words=(*words, here[0])))
        return said

    def reboot(self) -> None:
        """Shuts the machine down, and boots it."""
        self.machine.reboot()
        self.hosts.update(_hosts(self.machine))


def _hosts(made: Machine) -> dict[str, Host]:
    names = ("host1", "host2", "visitor")
    return {name: replace(made.host(ADDRESSES[name]), name=name, seconds=300) for name in names}


def instead(made: Machine) -> Mapping[str, Callable[[Host, str], str | None]]:
    """By what a line begins with; nothing else of the page is replaced."""

    def online(line: str) -> None:
        """Runs a line on the network where the packages are."""
        proxies = (name for name in os.environ if name.lower().endswith("_proxy"))
        told = "".join(f"export {name}={shlex.quote(os.environ[name])}\n" for name in proxies)
        folder = _SERVER if line.startswith("script/") else "/"
        made.online().run(told + line, cwd=folder)

    def install(host: Host, line: str) -> str:
        """Fetches packages there, and installs them here: a service that is started by that has the
        machine's own network."""
        online(line.replace("install ", "install --download-only ", 1))
        return line

    return {
        r"^(apt-get update|script/bootstrap)$": lambda host, line: online(line),
        r"^apt-get install ": install,
        # One machine has one folder.
        r"^echo .*/etc/fstab$": lambda host, line: None,
        r"^exportfs ": lambda host, line: None,
        r"^mount /srv/realms/blobs$": lambda host, line: None,
    }


@contextmanager
def one_machine(folder: Path) -> Iterator[OneMachine]:
    """The machine before the page's first command; everything of it is gone afterwards."""
    with ExitStack() as stack:
        repository = _repository(folder)
        stack.callback(shutil.rmtree, repository)
        addresses = [ADDRESSES["host1"], ADDRESSES["host2"]]
        made = stack.enter_context(machine(folder, "host1", addresses, NAMES, [repository]))
        hosts = _hosts(made)
        fleet = Fleet(hosts, folder, folder, folder, "rabbitmq")
        fleet.runner = Runner(hosts, _WORDS, instead(made), "rabbitmq")
        yield OneMachine(made, hosts, fleet)


def _repository(folder: Path) -> Path:
    """This checkout as it is, committed; and a release after it, of which only the tag knows."""
    repository = checkout(folder).rename(folder / Path(REPOSITORY).name)
    (repository / ".venv").unlink()
    subprocess.run(
        ["bash", "-euc",
         "git init --quiet --initial-branch main\n"
         "git config user.name test; git config user.email test@example.com\n"
         "git add --all; git commit --quiet --message checkout\n"
         "git checkout --quiet --detach; echo '# next' >> CHANGELOG.md\n"
         f"git commit --quiet --all --message next; git tag {RELEASE}; git checkout --quiet main"],
        cwd=repository, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return repository
