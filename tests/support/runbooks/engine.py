"""Runs a container engine (Docker) for a test, on a host of `hosts.py`, which is a process in its
own Linux namespaces. The engine uses no images from registries.

The engine's networks, mounts and processes end with the host, and the engine's files are in the
test's folder. The engine's control groups don't end with the host, because they are control groups
of this machine. The test removes the control groups at its end. If the test is killed, the next
test removes the control groups. The engine reaches the internet through the program slirp4netns,
which opens the connections as an ordinary process of this machine. So the settings of this
machine's network stay unchanged.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import wait_until
from tests.support.runbooks.hosts import PATH, Host, hosts, need
from tests.support.servers.reaper import mark

#: The programs that the engine needs, each with the Debian package that contains it.
PROGRAMS = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "docker-init": "tini",
    "docker-compose": "docker-compose",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "slirp4netns": "slirp4netns",
}
#: The folder of the engine's files on the host.
STATE = "/srv/engine"
IMAGES = Path(__file__).with_name("images")
BASE = "docker.io/library/python:3.13-slim-bookworm"
#: The Debian packages to install in each image, by the image's name.
SYSTEMS = {
    "python": ("python3", "python3-venv", "ca-certificates"),
    "services": ("postgresql", "nginx", "rabbitmq-server"),
}
#: The environment variables that say how to reach the package indexes. The engine's images get the
#: values of this machine, because builds in the images install packages.
INDEXES = (
    "http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST", "PIP_CERT", "NPM_CONFIG_REGISTRY",
)  # fmt: skip
INDEX_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
_GROUPS = "realm-test-engine-"


def need_engine() -> None:
    """Skips the test if no engine can be started, and says which packages to install."""
    missing = {name for name in PROGRAMS if shutil.which(name, path=PATH) is None}
    if missing:
        packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
        pytest.skip(f"there is no `{min(missing)}` here: apt-get install {packages}")
    need("openssl", "script")


@contextmanager
def engine_host(
    folder: Path, addresses: Mapping[str, str], names: Mapping[str, str]
) -> Iterator[dict[str, Host]]:
    """Makes hosts, and runs an engine on the first host. The engine already has an image of Debian
    and Python. This image has the name `BASE`, so the engine doesn't download the registry's image
    of that name."""
    need_engine()
    state = folder / "engine"
    state.mkdir()
    with ExitStack() as stack:
        stack.callback(wait_until, lambda: _gone(state), "the engine's files are removed", 30)
        stack.callback(wait_until, _leave_no_groups, "the engine's control groups are gone", 30)
        _leave_no_groups()
        made = stack.enter_context(hosts(addresses, names))
        host = made[next(iter(addresses))]
        host.run(f"mkdir {STATE}; mount --bind {shlex.quote(str(state))} {STATE}")
        stack.enter_context(_way_out(host))
        stack.enter_context(_running(host, folder))
        _make_images(host, folder)
        yield made


def _gone(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _leave_no_groups() -> bool:
    """Removes the control groups of the engines that this process or an ended process has started.
    Returns true if none of this process's groups is left. A group with running processes can't
    be removed."""
    left = [
        group
        for pattern in (f"{_GROUPS}*", f"*/{_GROUPS}*")
        for group in Path("/sys/fs/cgroup").glob(pattern)
    ]
    mine = f"{_GROUPS}{os.getpid()}"
    for top in left:
        if top.name == mine or not psutil.pid_exists(int(top.name.removeprefix(_GROUPS))):
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
    return not any(group.exists() for group in left if group.name == mine)


@contextmanager
def _way_out(host: Host) -> Iterator[None]:
    """Lets a host reach every network that this machine reaches, and resolve names through DNS."""
    command = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback"]
    process = subprocess.Popen(
        [*command, str(host.pid), "out"],
        env={"PATH": PATH, **mark()},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: " dev out" in host.run("ip route"), "the host has the device `out`", 10)
        host.run("rm -f /etc/resolv.conf; echo nameserver 10.0.2.3 > /etc/resolv.conf")
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _running(host: Host, folder: Path) -> Iterator[None]:
    host.run("rm -rf /etc/docker; mkdir /etc/docker")
    log = folder / "engine.log"
    running = host.spawn(
        ["dockerd", "--data-root", f"{STATE}/data", "--cgroup-parent", f"/{_GROUPS}{os.getpid()}",
         "--exec-opt", "native.cgroupdriver=cgroupfs"],
        log, environment={}, cwd="/",
    )  # fmt: skip

    def answers() -> bool:
        assert running.poll() is None, log.read_text()[-3000:]
        return "Server:" in host.run("docker version", check=False)

    try:
        wait_until(answers, f"the engine answers; {log} says why not", 60)
        yield
    finally:
        # This kill doesn't end the engine's containers. They end with the host.
        running.kill()
        running.wait()


def _make_images(host: Host, folder: Path) -> None:
    """Makes the two images in `SYSTEMS` at the same time, and imports them into the engine."""
    indexes = {name: os.environ[name] for name in INDEXES if name in os.environ}
    running = {}
    for name, packages in SYSTEMS.items():
        copied = [
            f"--customize-hook=copy-in {path} {Path(path).parent}"
            for path in INDEX_FILES
            if name == "python" and Path(path).exists()
        ]
        command = [
            "mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", *copied,
            "bookworm", f"{STATE}/{name}.tar",
        ]  # fmt: skip
        environment = {"TMPDIR": STATE, **indexes}
        log = folder / f"{name}.log"
        running[name] = host.spawn(command, log, environment=environment, cwd="/"), log
    for name, (process, log) in running.items():
        assert process.wait(600) == 0, f"{name}: {log.read_text()[-3000:]}"
        told = [f"--change {shlex.quote(f'ENV {key}={value}')}" for key, value in indexes.items()]
        image = BASE if name == "python" else name
        host.run(
            f"docker import {' '.join(told)} {STATE}/{name}.tar {image}; rm {STATE}/{name}.tar"
        )


def make_stand_in(host: Host, image: str) -> None:
    """Builds an image from images/Dockerfile, and gives it the name of a registry's image, so that
    the engine doesn't download the registry's image."""
    target = image.rpartition("/")[2].partition(":")[0]
    assert f" AS {target}\n" in (IMAGES / "Dockerfile").read_text(), f"no stand-in for {image}"
    host.run(f"docker build --quiet --target {target} --tag {image} {shlex.quote(str(IMAGES))}")
