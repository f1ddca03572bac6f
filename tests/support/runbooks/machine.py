"""Boots a test machine with Debian 12. The test machine runs a real systemd, as an empty host does.

`mmdebstrap` makes the test machine from the packages that Debian's installer installs. The test
machine is kept in memory, and boots in new namespaces and in a new cgroup. The test machine changes
nothing on the real machine, and ends when its first process, systemd, ends. The real machine's apt
options, pip configuration, DNS configuration and trusted certificate authorities are copied to the
test machine.

The test machine differs from a real host in two respects. The test machine uses the real machine's
kernel, which may not support NFS, so the tests use no NFS. A unit's memory limit holds only if the
real machine's cgroups (version 2) have the memory controller.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import wait_until
from tests.support.runbooks.hosts import PATH, Host, children, first_process, need
from tests.support.servers.reaper import mark

#: The memory for the test machine's files, including Postgres, RabbitMQ and a virtual environment.
_BYTES = 4 * 1024**3
#: The real machine's configuration of pip and DNS, and its trusted certificate authorities. The
#: files that exist are copied to the test machine.
_SHARED = ("/etc/pip.conf", "/etc/xdg/pip", "/usr/local/share/ca-certificates", "/etc/resolv.conf")
_SPACES = ("--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup")
_CGROUP = "realm-test-machine-"

#: The script that starts systemd in new namespaces. The script prevents the test machine from
#: changing the kernel's variables, modules and clock.
_BOOT = r"""
root=$1; shift
ip link set lo up
for each in "$@"; do
  ip addr add "$each/32" dev lo
  # A connection to any of the addresses comes from the first address, as on a host with only one.
  ip route replace table local local "$each" dev lo src "$1"
done
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
for each in proc/sys proc/sysrq-trigger; do
  if [ -e $each ]; then mount --bind $each $each; mount -o remount,bind,ro $each; fi
done
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
while read -r name major minor; do mknod -m 666 dev/$name c $major $minor; done <<EOF
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
EOF
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p mnt/before
pivot_root . mnt/before
umount -l /mnt/before
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time /lib/systemd/systemd
"""


class Machine:
    """A test machine that can be booted repeatedly. Its files survive a reboot."""

    def __init__(self, name: str, addresses: Sequence[str], names: Mapping[str, str]) -> None:
        self.name = name
        self.addresses = addresses
        self.root = ""
        self._names = names
        self._keeper: Host | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        self._cgroup = _cgroups() / f"{_CGROUP}{os.getpid()}-{name}"

    def host(self, address: str) -> Host:
        """Returns the running test machine as a `Host` with the given address. This `Host` is valid
        only until the next reboot."""
        return Host(self.name, address, self._first(), spaces=_SPACES)

    def online(self) -> Host:
        """Returns a `Host` that runs commands on the test machine, but with the real machine's
        network. Such commands can download packages."""
        spaces = tuple(each for each in _SPACES if each != "--net")
        return replace(self.host(self.addresses[0]), spaces=spaces, seconds=600)

    def install(self, folder: Path, keeper: int, *mounts: Path) -> None:
        """Installs Debian in memory, and copies the folders `mounts` of the real machine to /mnt of
        the test machine. `keeper` is the id of an idle process. The files are mounted only in the
        namespaces of this process, so they vanish when the process ends."""
        self._keeper = Host("keeper", "", keeper, spaces=("--mount", "--pid"), seconds=900)
        self.root = f"{folder}/{self.name}"
        known = "".join(f"{address} {name}\n" for name, address in self._names.items())
        self._keeper.run(
            f"""
            mkdir {self.root}
            mount -t tmpfs -o mode=755,size={_BYTES} tmpfs {self.root}
            apt-config dump --format '%F "%v";%n' Acquire > {self.root}.apt
            mmdebstrap --quiet --mode=root --variant=important --format=directory \\
              --aptopt={self.root}.apt --include=systemd-sysv,dbus,ca-certificates \\
              bookworm {self.root}
            rm {self.root}.apt
            echo {self.name} > {self.root}/etc/hostname
            printf '127.0.0.1 localhost\\n%s' {shlex.quote(known)} > {self.root}/etc/hosts
            for each in {" ".join(_SHARED)}; do
              if [ -e $each ]; then cp -L --recursive --parents $each {self.root}; fi
            done
            for each in {shlex.join(map(str, mounts))}; do
              cp --archive $each {self.root}/mnt
            done
            chroot {self.root} update-ca-certificates > /dev/null
            """
        )

    def boot(self) -> None:
        """Starts systemd, and waits until systemd has started all enabled units."""
        assert self._keeper is not None and self._holder is None
        inner = self._cgroup / "machine"
        inner.mkdir(parents=True)
        # Only systemd and its descendants are in this cgroup. The process `_holder`, which starts
        # them, stays outside.
        enter = f'echo 0 > {inner}/cgroup.procs; exec unshare --cgroup bash -euc "$0" boot "$@"'
        self._holder = subprocess.Popen(
            self._keeper.within(
                "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--mount-proc", "--fork",
                "--kill-child", "bash", "-euc", enter, _BOOT, self.root, *self.addresses,
            ),
            env={"PATH": PATH, **mark()}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        wait_until(self._there, f"systemd runs on {self.name}", 60)
        self.host("").run("systemctl is-system-running --wait || true")

    def reboot(self) -> None:
        """Shuts the test machine down as an operator does, and boots it again. The shutdown stops
        all units."""
        assert self._holder is not None
        self.host("").run("systemctl poweroff --no-wall")
        self._holder.wait(150)
        self.halt()
        self.boot()

    def halt(self) -> None:
        """Switches the test machine off by killing all its processes."""
        if self._holder is not None:
            for each in reversed(_below(self._holder.pid)):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            self._holder.kill()
            self._holder.communicate()
            self._holder = None
        wait_until(lambda: not _populated(self._cgroup), f"{self.name} is off", 30)
        _remove(self._cgroup)

    def _first(self) -> int:
        """Returns the process id of systemd, which is the test machine's first process. systemd is
        a descendant of the process `_holder`. Each process between the two has only one child, so
        the search looks only at first children."""
        assert self._holder is not None
        found = children(self._holder.pid)
        with suppress(psutil.NoSuchProcess):
            while found:
                if found[0].name() == "systemd":
                    return found[0].pid
                found = children(found[0].pid)
        raise AssertionError(f"{self.name} does not run")

    def _there(self) -> bool:
        holder = self._holder
        assert holder is not None and holder.stderr is not None
        if holder.poll() is not None:
            pytest.skip(f"no machine can be booted: {holder.stderr.read().decode().strip()}")
        with suppress(AssertionError):
            return Path(f"/proc/{self._first()}/root/run/systemd/private").exists()
        return False


@contextmanager
def machine(
    folder: Path,
    name: str,
    addresses: Sequence[str],
    names: Mapping[str, str],
    copies: Sequence[Path] = (),
) -> Iterator[Machine]:
    """Yields a test machine that has booted. `names` maps DNS names to addresses. The test
    machine's files are in memory, mounted below `folder`. The folders `copies` of the real machine
    are copied to /mnt of the test machine. The test machine is removed at the end of the block."""
    _need()
    with ExitStack() as stack:
        holders: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, holders)
        made = Machine(name, addresses, names)
        keeper = first_process(holders, "--mount", "--pid", "--mount-proc")
        made.install(folder, keeper, *copies)
        stack.callback(made.halt)
        made.boot()
        yield made


def _need() -> None:
    """Skips the test if no test machine can be made. Removes the cgroups of killed test runs."""
    need("apt-config", "pivot_root", "mknod", "chroot")
    if shutil.which("mmdebstrap", path=PATH) is None:
        pytest.skip("there is no `mmdebstrap` here: apt-get install mmdebstrap")
    if psutil.virtual_memory().available < _BYTES:
        pytest.skip(f"a test machine takes {_BYTES // 1024**3} GiB of memory, and less is free")
    for left in _cgroups().glob(f"{_CGROUP}*"):
        # A cgroup's name contains the process id of its test run.
        run = left.name.removeprefix(_CGROUP).partition("-")[0]
        if not psutil.pid_exists(int(run)) and not _populated(left):
            _remove(left)


def _cgroups() -> Path:
    """Returns the folder of the real machine's cgroups (version 2)."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(path)
    pytest.skip("no cgroups of version 2 are mounted here")


def _populated(cgroup: Path) -> bool:
    with suppress(FileNotFoundError):
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    return False


def _remove(cgroup: Path) -> None:
    for folder, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(folder)


def _below(pid: int) -> list[psutil.Process]:
    """Returns a process's descendants, parents first."""
    found = children(pid)
    return [*found, *(below for each in found for below in _below(each.pid))]


def _end(holders: list["subprocess.Popen[bytes]"]) -> None:
    for each in holders:
        for child in children(each.pid):
            child.kill()
        each.kill()
        each.communicate()
