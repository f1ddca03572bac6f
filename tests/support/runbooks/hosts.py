"""Makes hosts for tests. Each host has its own network interface, folders, users and processes. A
network bridge connects all hosts.

A host is a process in new Linux namespaces. The host has its own copy of this machine's /etc. The
host's data folders (/srv, /run, /var/lib, /var/cache, /var/log, /var/backups) are in memory, and
empty at first. A host uses the programs of this machine, but not the data in these folders, and
changes nothing on this machine. When the host's process ends, the kernel removes the host's folders
and network.
"""

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from settings.environment import BASE_DIR
from tests.support.cluster import wait_until
from tests.support.servers.reaper import mark

T = TypeVar("T")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Maps each owner to the folders that Debian's packages make for this owner when they are
#: installed. On a host these folders are missing at first, because the data folders are empty.
FOLDERS = {
    "root": ("/var/lib/nginx", "/var/log/nginx", "/run/lock", "/var/backups"),
    "postgres": ("/var/lib/postgresql", "/var/log/postgresql", "/run/postgresql"),
    "rabbitmq": ("/var/lib/rabbitmq", "/var/log/rabbitmq", "/run/rabbitmq"),
    "redis": ("/var/lib/redis", "/var/log/redis", "/run/redis"),
}
_NEW_NETWORK = 0x40000000


def need(*programs: str) -> None:
    """Skips the test if no hosts can be made, or if one of the `programs` is missing."""
    if os.geteuid() != 0:
        pytest.skip("only root can make networks")
    for program in ("ip", "unshare", "nsenter", "setpriv", "runuser", *programs):
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"there is no `{program}` here")


@dataclass(frozen=True)
class Host:
    """A host. `pid` is the id that the host's first process has on this machine."""

    name: str
    address: str
    pid: int
    #: The options of `nsenter` for the host's namespaces. Commands run in these namespaces.
    spaces: tuple[str, ...] = ("--net", "--mount", "--uts", "--pid")
    #: The maximum time that a script may take. Unit: seconds.
    seconds: float = 120

    def within(self, *command: str) -> list[str]:
        """Returns an `nsenter` command that runs `command` on the host."""
        return ["nsenter", "--target", str(self.pid), *self.spaces, "--", *command]

    def run(self, script: str, *, cwd: str = "/", check: bool = True) -> str:
        """Runs a shell script on the host as root, and returns its output. If the script fails and
        `check` is true, the test fails."""
        done = subprocess.run(
            self.within("bash", "-euo", "pipefail", "-c", f"cd {shlex.quote(cwd)}\n{script}"),
            capture_output=True,
            text=True,
            env={**_environment(), **mark()},
            stdin=subprocess.DEVNULL,
            timeout=self.seconds,
            check=False,
        )
        said = done.stdout + done.stderr
        assert not check or done.returncode == 0, f"{self.name}: {script}\n{said}"
        return said

    def spawn(
        self, command: Sequence[str], log: Path, *, environment: Mapping[str, str], cwd: str
    ) -> "subprocess.Popen[bytes]":
        """Starts a process on the host. Returns the process of `nsenter`, which is the new
        process's parent."""
        inside = self.within("sh", "-c", 'cd "$0"; exec "$@"', cwd, *command)
        with open(log, "ab") as file:
            return subprocess.Popen(
                inside,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**_environment(), **environment, **mark()},
                start_new_session=True,
            )

    def write(self, path: str, text: str) -> None:
        """Writes a file on the host."""
        Path(f"/proc/{self.pid}/root{path}").write_text(text)

    def read(self, path: str) -> str:
        """Returns the text of a file on the host."""
        return Path(f"/proc/{self.pid}/root{path}").read_text()

    def threads(self, count: int) -> ThreadPoolExecutor:
        """Returns a pool of threads. The threads belong to this process, but use the host's
        network."""
        return ThreadPoolExecutor(count, initializer=_enter, initargs=(self.pid,))

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function in a thread on the host's network, and returns its result."""
        with self.threads(1) as pool:
            return pool.submit(function, *arguments).result()


def _enter(pid: int) -> None:
    with open(f"/proc/{pid}/ns/net") as space:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(space.fileno(), _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _environment() -> dict[str, str]:
    return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}


@contextmanager
def hosts(addresses: Mapping[str, str], names: Mapping[str, str]) -> Iterator[dict[str, Host]]:
    """Makes one host for each entry of `addresses`, which maps a host's name to its IP address. All
    addresses must be in one /24 network. `names` maps further DNS names to IP addresses. Removes
    the hosts at the end of the block."""
    made: list[subprocess.Popen[bytes]] = []
    try:
        switch = first_process(made, "--net", "--pid")
        _within(switch, "ip link add bridge type bridge", "ip link set bridge up")
        found = {}
        for number, (name, address) in enumerate(addresses.items()):
            pid = first_process(made, "--net", "--mount", "--uts", "--pid", "--mount-proc")
            _within(
                switch,
                f"ip link add port{number} type veth peer name eth0 netns {pid}",
                f"ip link set port{number} master bridge up",
            )
            found[name] = Host(name, address, pid)
            _furnish(found[name], addresses, names)
        yield found
    finally:
        for each in made:
            # When the first process of a namespace ends, the kernel ends all other processes of the
            # namespace.
            for child in children(each.pid):
                child.kill()
            each.kill()
            each.communicate()


def first_process(made: list["subprocess.Popen[bytes]"], *spaces: str) -> int:
    """Starts an idle process in new namespaces, and returns the idle process's id. Appends its
    parent, the process of `unshare`, to `made`."""
    holder = subprocess.Popen(
        # The first process of a namespace must reap orphaned processes.
        ["unshare", *spaces, "--fork", "--kill-child", "bash", "-c",
         "exec 2>/dev/null; trap : CHLD; while :; do sleep 3600 & wait; done"],
        env={**_environment(), **mark()},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    made.append(holder)

    def there() -> Any:
        if holder.poll() is not None:
            assert holder.stderr is not None
            pytest.skip(f"no namespaces can be made: {holder.stderr.read().decode().strip()}")
        found = children(holder.pid)
        return found and found[0].name() == "bash" and found

    pid: int = wait_until(there, "a process in new namespaces", 10)[0].pid
    return pid


def children(pid: int) -> list[psutil.Process]:
    """Returns the child processes of a process; an empty list if the process has ended."""
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def _within(pid: int, *commands: str) -> None:
    for command in commands:
        done = subprocess.run(
            ["nsenter", "--target", str(pid), "--net", "--", *command.split()],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"no bridge or cable can be made ({command}): {done.stderr.strip()}")


def _furnish(host: Host, addresses: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Gives a new host its address, its name and its own copy of /etc. Also makes the host's empty
    data folders, such as /srv and /var/lib, and the folders that Debian's packages expect in
    them."""
    folders = "\n".join(
        f"if getent passwd {owner} >/dev/null; then"
        f" install --directory --owner {owner} --group {owner} {' '.join(paths)}; fi"
        for owner, paths in FOLDERS.items()
    )
    known = [(address, name) for name, address in {**addresses, **names}.items()]
    host.run(
        f"""
        ip link set lo up
        ip addr add {host.address}/24 dev eth0
        ip link set eth0 up
        hostname {host.name}
        mount --make-rprivate /
        mount -t tmpfs -o mode=755 tmpfs /srv
        cp --archive /etc /srv/etc
        mount --move /srv /mnt
        mount --bind /mnt/etc /etc
        for each in /srv /run /var/lib /var/cache /var/log /var/backups; do
            mount -t tmpfs -o mode=755 tmpfs $each
        done
        rm -rf /etc/rabbitmq/* /etc/postgresql/* /etc/realms /etc/exports.d
        mkdir -p /etc/systemd/system
        {folders}
        {_reachable()}
        """
    )
    host.write(
        "/etc/hosts",
        "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for address, name in known),
    )


def _reachable() -> str:
    """Returns a script that lets every user of a host read the Python interpreter and the installed
    Python packages. All these files keep their paths, even if a path is in a home folder that other
    users can't enter."""
    closed: dict[Path, list[Path]] = {}
    for path in (Path(sys.base_prefix), (BASE_DIR / ".venv").resolve()):
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & 0o001:
                closed.setdefault(folder, []).append(path)
                break
    lines = []
    for number, (folder, paths) in enumerate(closed.items()):
        keep = [(f"/mnt/{number}-{i}", shlex.quote(str(path))) for i, path in enumerate(paths)]
        lines += [f"mkdir {at}; mount --bind {path} {at}" for at, path in keep]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(folder))}")
        lines += [f"mkdir -p {path}; mount --bind {at} {path}" for at, path in keep]
    return "\n".join(lines)


def checkout(folder: Path) -> Path:
    """Copies this checkout to a new folder in `folder`, without its history, data, caches and
    tests. The copy uses this checkout's virtual environment."""
    copy = folder / "server"
    left = shutil.ignore_patterns(".git", ".venv", ".data", ".*_cache", "tests")
    shutil.copytree(BASE_DIR, copy, ignore=left, symlinks=True)
    (copy / ".venv").symlink_to((BASE_DIR / ".venv").resolve())
    return copy
