"""Follows docs/operations/three-hosts.md on one test machine with systemd. The test machine is both
host 1 and host 2.

The page's commands install Debian's packages, clone the repository, run `script/bootstrap` and
start systemd's units. The function `instead` returns the replacements for two kinds of commands.
Commands that download packages use the real machine's network, because the test machine's own
network can't reach the Internet. Commands for NFS are left out, because host 1 and host 2 share
their files anyway. All other commands run unchanged. There is no host 3, although the balancer's
list of replicas contains it.
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

#: The path of the git repository on the test machine, and the tag of a release in it. `_repository`
#: makes both.
REPOSITORY, RELEASE = "/mnt/repository", "next"
_WORDS = {**WORDS, "REPOSITORY": REPOSITORY, "RELEASE": RELEASE}
_SERVER = "/srv/realms/server"


@dataclass
class OneMachine:
    """The test machine and its fleet. Each entry of `hosts` is the test machine, under the name of
    one of the page's hosts."""

    machine: Machine
    hosts: dict[str, Host]
    fleet: Fleet

    def run(self, command: str, *, check: bool = True) -> str:
        """Runs a command in host 2's checkout, and returns the output."""
        return self.hosts["host2"].run(command, cwd=_SERVER, check=check)

    def show(self, unit: str, name: str) -> str:
        """Returns the current value of a systemd unit's property."""
        return self.run(f"systemctl show {unit} --property {name} --value").strip()

    def follow(self, page: Path, heading: str = "") -> str:
        """Runs a page's blocks for host 1, host 2 and the visitor, and returns their output. If a
        block is for several of these hosts, it runs once, because they are one machine. With a
        heading, runs only the blocks below it."""
        said = ""
        for block in blocks(page, heading):
            here = [name for name in block.hosts if name in self.hosts]
            words = [word for word in block.words if word not in block.hosts]
            if here:
                said += self.fleet.runner.do(replace(block, words=(*words, here[0])))
        return said

    def reboot(self) -> None:
        """Reboots the test machine."""
        self.machine.reboot()
        self.hosts.update(_hosts(self.machine))


def _hosts(made: Machine) -> dict[str, Host]:
    names = ("host1", "host2", "visitor")
    return {name: replace(made.host(ADDRESSES[name]), name=name, seconds=300) for name in names}


def instead(made: Machine) -> Mapping[str, Callable[[Host, str], str | None]]:
    """Returns replacements for commands of docs/operations/three-hosts.md. Each key is a regular
    expression. If a line of the page matches the key, the key's function is called, and the script
    that it returns is run instead of the line (`Runner`)."""

    def online(line: str) -> None:
        """Runs a line of the page on the test machine, but with the real machine's network, so that
        the line can download packages."""
        proxies = (name for name in os.environ if name.lower().endswith("_proxy"))
        told = "".join(f"export {name}={shlex.quote(os.environ[name])}\n" for name in proxies)
        folder = _SERVER if line.startswith("script/") else "/"
        made.online().run(told + line, cwd=folder)

    def install(host: Host, line: str) -> str:
        """Downloads packages over the real machine's network. Returns the command line, which the
        test machine runs on its own network. The command installs the downloaded packages and
        starts their services."""
        online(line.replace("install ", "install --download-only ", 1))
        return line

    return {
        r"^(apt-get update|script/bootstrap)$": lambda host, line: online(line),
        r"^apt-get install ": install,
        # Host 1 and host 2 are the same machine, so they need no NFS.
        r"^echo .*/etc/fstab$": lambda host, line: None,
        r"^exportfs ": lambda host, line: None,
        r"^mount /srv/realms/blobs$": lambda host, line: None,
    }


@contextmanager
def one_machine(folder: Path) -> Iterator[OneMachine]:
    """Yields the test machine in its state before the page's first command. Removes the test
    machine at the end of the block."""
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
    """Makes a git repository, and commits this checkout on the branch main. Makes a second commit
    with the tag RELEASE, on no branch. It is the release to which a test upgrades."""
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
