"""Starts the fleet of deploy/compose.yaml with the commands of the page
docs/operations/three-hosts.md.

The test's run differs from the page in four ways:

- If only the older program `docker-compose` is installed, it replaces `docker compose`.
- Except for `docker compose up`, the program `script` runs the commands and gives them a terminal.
- The test builds all images, and downloads none from a registry.
- If deploy/compose.yaml allows more open files than this machine, the test lowers the file's limit.
"""

import re
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import urllib3

from tests.support.cluster import wait_until
from tests.support.runbooks.engine import engine_host, make_stand_in
from tests.support.runbooks.fleet_of_hosts import ADDRESSES, NAMES, ORIGIN, PAGE, WORDS, Fleet
from tests.support.runbooks.hosts import checkout
from tests.support.runbooks.runbook import blocks

SERVER = "/srv/realms/server"
#: The services that run permanently.
SERVICES = (
    "postgres", "rabbitmq", "web-1", "sidecar-1", "web-2", "sidecar-2", "worker", "nginx"
)  # fmt: skip
#: The longest time that `docker compose up` may take on a busy machine. This includes the time for
#: building the image.
START_SECONDS = 600


class Containers(Fleet):
    """A host that runs the whole fleet in containers, and a visitor's host."""

    _up: "subprocess.Popen[bytes] | None" = None

    def run(self, line: str, *, check: bool = True) -> str:
        """Runs a command of the page in the host's checkout, with a terminal, and returns the
        output. If the command fails and `check` is true, the test fails."""
        terminal = f"script --quiet --return --command {shlex.quote(self._here(line))} /dev/null"
        said = self.hosts["host1"].run(terminal, cwd=SERVER, check=check)
        # A terminal shows the end of its input as ^@.
        return said.replace("\r\n", "\n").replace("^@", "")

    def start(self, line: str) -> None:
        """Runs the page's `docker compose up`, and waits until all services run."""
        log = self.folder / "up.log"
        running = self._up = self.hosts["host1"].spawn(
            ["bash", "-c", f"exec {self._here(line)}"], log, environment={}, cwd=SERVER
        )

        def served() -> bool:
            assert running.poll() is None, log.read_text()[-5000:]
            return all(self.pid(each) for each in SERVICES) and self.ready()

        wait_until(served, f"everything runs; {log} says why not", START_SECONDS)

    def interrupt(self) -> None:
        """Interrupts `docker compose up` as Ctrl-C does, and waits until the command has ended."""
        assert self._up is not None
        for each in psutil.Process(self._up.pid).children():
            each.send_signal(signal.SIGINT)
        self._up.wait(120)

    def stop(self) -> None:
        """Kills the process of `docker compose up`. The containers end when their host ends."""
        if self._up is not None:
            self._up.kill()
            self._up.wait()

    def ready(self) -> bool:
        """Returns whether the balancer reaches a replica that can serve."""
        try:
            return self.get(f"{ORIGIN}/_readiness").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def inspect(self, service: str, value: str) -> str:
        """Returns a value from the output of `docker inspect` for a service's newest container.
        `value` is the path of the value, such as `.State.Pid`. Returns an empty text if the service
        has no container."""
        label = f"label=com.docker.compose.service={service}"
        script = (
            f"for each in $(docker ps --all --quiet --filter {label} | head -1); do"
            f" docker inspect --format '{{{{{value}}}}}' $each 2>/dev/null || true; done"
        )
        return self.hosts["host1"].run(script).strip()

    def pid(self, service: str) -> int:
        """Returns the id that a service's first process has on the host; 0 if the service doesn't
        run."""
        return int(self.inspect(service, ".State.Pid") or 0)

    def kill(self, *services: str) -> dict[str, int]:
        """Kills the first processes of services at the same time, by signals and not through the
        container engine. Returns the id of each killed process, by service."""
        found = {each: self.pid(each) for each in services}
        assert all(found.values()), found
        self.hosts["host1"].run(f"kill -9 {' '.join(map(str, found.values()))}")
        return found

    def wait_back(self, killed: dict[str, int]) -> None:
        """Waits until killed services run again. `killed` is the result of `kill`."""
        wait_until(
            lambda: all(self.pid(each) not in (0, old) for each, old in killed.items()),
            f"{', '.join(killed)} started again", 60,
        )  # fmt: skip

    def _here(self, line: str) -> str:
        newer = "Docker Compose" in self.hosts["host1"].run("docker compose version", check=False)
        return line if newer else re.sub(r"^docker compose ", "docker-compose ", line)

    def fill_in(self) -> None:
        """Fills in compose.env and makes a certificate. On the page, the operator does this after
        the first command, which copies compose.env, and before `docker compose up`."""
        path = self.server / "deploy" / "compose.env"
        text = path.read_text()
        for word in re.findall(r"^(\w+)=$", text, re.MULTILINE):
            text = text.replace(f"{word}=\n", f"{word}={WORDS[word]}\n")
        path.write_text(text)
        certificate = blocks(PAGE, "## 7. Host 1: the balancer")[0]
        self.runner.do(certificate)


@contextmanager
def containers(folder: Path) -> Iterator[Containers]:
    """Yields a fleet on which no command of the page has run yet. The container engine of its host
    has images that were built on this machine, in place of images from registries."""
    with ExitStack() as stack:
        copy = checkout(folder)
        stack.callback(shutil.rmtree, copy)
        compose = copy / "deploy" / "compose.yaml"
        text = compose.read_text()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        compose.write_text(
            re.sub(r"(?<=nofile: )\d+", lambda found: str(min(most, int(found[0]))), text)
        )
        addresses = {name: ADDRESSES[name] for name in ("host1", "visitor")}
        hosts = stack.enter_context(engine_host(folder, addresses, NAMES))
        for image in re.findall(r"image: (docker\.io/\S+)", text):
            make_stand_in(hosts["host1"], image)
        hosts["host1"].run(f"mkdir -p {SERVER}; mount --bind {shlex.quote(str(copy))} {SERVER}")
        fleet = Containers(hosts, folder, folder / "shared", copy, "")
        stack.callback(fleet.stop)
        yield fleet
