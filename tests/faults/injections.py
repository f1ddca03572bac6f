"""Injects the faults of a fault campaign into the fleet. Most faults last for a random time. The
method that injects such a fault also ends the fault, for example by starting a killed process
again."""

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from settings.processes import Process
from tests.faults.clients import Site
from tests.faults.dying import STEPS
from tests.faults.judge.history import History
from tests.faults.postgres import Postgres
from tests.support.cluster import Cluster, Replica
from tests.support.servers.edge import Edge
from tests.support.servers.proxy import Proxy


class Injections:
    """Injects single faults into a fleet. Two faults can overlap, unless both reserve the same
    target (`_alone`)."""

    def __init__(
        self, fleet: Cluster, postgres: Postgres, proxies: dict[str, Proxy], sites: list[Site],
        broker: Path,
    ) -> None:  # fmt: skip
        self._fleet, self._postgres, self._proxies = fleet, postgres, proxies
        self._sites, self._broker = sites, broker
        self._busy: dict[str, threading.Lock] = {}
        self.celery: subprocess.Popen[bytes] = fleet.start_worker()
        #: For each stall of a LISTEN connection, the seconds from the end of the stall until the
        #: replica's board was live. Web workers answer from caches only while the board is live.
        self.back_to_hits: list[float] = []
        self._steps: Iterator[str] = iter(())
        #: The nginx in front of the fleet; None if the campaign runs without nginx.
        self.edge: Edge | None = None

    def kinds(self) -> dict[str, Callable[[random.Random], None]]:
        """Returns the methods that inject faults, by the name of the kind of fault."""
        return {
            "sidecar killed": self.kill_sidecar,
            "sidecar suspended": self.stop_sidecar,
            "web worker killed": self.kill_web_worker,
            "web worker suspended": self.stop_web_worker,
            "web service killed": self.kill_web,
            "Celery worker killed": self.kill_celery,
            "Celery process killed": self.kill_celery_process,
            "Celery process suspended": self.stop_celery_process,
            "prerenderer killed": self.kill_prerenderer,
            "prerenderer suspended": self.stop_prerenderer,
            "publisher killed at a step": self.kill_publisher_at_a_step,
            "publisher killed at a random moment": self.kill_publisher,
            "publisher suspended": self.stop_publisher,
            "LISTEN connections ended by Postgres": self.end_listeners,
            "LISTEN connection stalled": self.stall,
            "LISTEN connection cut": self.cut,
            "LISTEN connection cut and refused": self.out_of_reach,
            "messages lost": self.lose_messages,
            "messages delayed": self.delay_messages,
            "Postgres stopped without a checkpoint": self.restart_postgres,
            **(
                {"nginx suspended": self.stop_edge, "nginx reloaded": self.reload_edge}
                if self.edge
                else {}
            ),
        }

    @contextmanager
    def _alone(self, what: str) -> Iterator[bool]:
        """Reserves a target for one fault. `what` is the name of the target, for example `postgres`
        or `celery`. Yields False if another fault has reserved the target."""
        lock = self._busy.setdefault(what, threading.Lock())
        free = lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                lock.release()

    # --- sidecars and web services ---

    def kill_sidecar(self, rng: random.Random) -> None:
        replica, away = rng.choice(self._fleet.replicas), rng.uniform(0, 4)
        with self._alone(f"sidecar {replica.name}") as free:
            if free:
                replica.kill("sidecar")
                time.sleep(away)
                replica.start("sidecar")

    def stop_sidecar(self, rng: random.Random) -> None:
        replica, away = rng.choice(self._fleet.replicas), rng.uniform(0.5, 6)
        with self._alone(f"sidecar {replica.name}") as free:
            if free:
                self._freeze([psutil.Process(replica.running["sidecar"].pid)], away)

    def kill_web_worker(self, rng: random.Random) -> None:
        for each in self._web_workers(rng):
            each.kill()

    def stop_web_worker(self, rng: random.Random) -> None:
        self._freeze(self._web_workers(rng), rng.uniform(0.5, 5))

    def kill_web(self, rng: random.Random) -> None:
        replica, away = rng.choice(self._fleet.replicas), rng.uniform(0, 2)
        with self._alone(f"web {replica.name}") as free:
            if free:
                end_family(replica.running["web"])
                time.sleep(away)
                replica.start("web")
                with suppress(AssertionError):
                    replica.wait_web()

    def _web_workers(self, rng: random.Random) -> list[psutil.Process]:
        replica = rng.choice(self._fleet.replicas)
        return _some(rng, _children(replica.running["web"].pid))

    # --- Celery and its prerenderers ---

    def kill_celery(self, rng: random.Random) -> None:
        away = rng.uniform(0, 2)
        with self._alone("celery") as free:
            if free:
                end_family(self.celery)
                time.sleep(away)
                self.celery = self._fleet.start_worker()

    def kill_celery_process(self, rng: random.Random) -> None:
        for each in _some(rng, _children(self.celery.pid)):
            each.kill()

    def stop_celery_process(self, rng: random.Random) -> None:
        self._freeze(_some(rng, _children(self.celery.pid)), rng.uniform(0.5, 6))

    def kill_prerenderer(self, rng: random.Random) -> None:
        for each in self._prerenderers(rng):
            each.kill()

    def stop_prerenderer(self, rng: random.Random) -> None:
        self._freeze(self._prerenderers(rng), rng.uniform(0.5, 6))

    def _prerenderers(self, rng: random.Random) -> list[psutil.Process]:
        """Waits up to 5 s until a prerenderer runs, a Deno process that executes the code of cards.
        Returns a list with one running prerenderer, chosen at random. If no prerenderer runs within
        the 5 s, the list is empty."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = [p for p in _children(self.celery.pid, deep=True) if _is_deno(p)]
            if found:
                return _some(rng, found)
            time.sleep(0.01)
        return []

    # --- publishers ---

    def kill_publisher(self, rng: random.Random) -> None:
        self._publisher("never", rng.choice(self._sites), rng.uniform(0.4, 2.5))

    def stop_publisher(self, rng: random.Random) -> None:
        # A suspended publisher may hold locks of realms. Other processes that need these locks then
        # wait until the publisher continues.
        self._publisher(
            "never", rng.choice(self._sites), 20, rng.uniform(0.4, 2), rng.uniform(1, 5)
        )

    def kill_publisher_at_a_step(self, rng: random.Random) -> None:
        step = next(self._steps, None)
        if step is None:
            self._steps = iter(rng.sample(STEPS, len(STEPS)))
            step = next(self._steps)
        self._publisher(step, rng.choice(self._sites), 20)

    def _publisher(
        self, step: str, site: Site, seconds: float, stop_after: float = 0, away: float = 0
    ) -> None:
        command = (sys.executable, "-m", "tests.faults.dying", step, site.source, site.published)
        with self._alone("publisher") as free:
            if free:
                process = self._fleet.spawn(Process("publisher", command, {}))
                if away:
                    time.sleep(stop_after)
                    self._freeze([psutil.Process(process.pid)], away)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
                process.kill()
                process.wait()

    # --- the database, and connections to it ---

    def end_listeners(self, rng: random.Random) -> None:
        self._postgres.end_listeners()

    def stall(self, rng: random.Random) -> None:
        replica, away = rng.choice(self._fleet.replicas), rng.uniform(0.5, 8)
        with self._alone(f"way of {replica.name}") as free:
            if free:
                self._proxies[replica.name].stall()
                time.sleep(away)
                self._proxies[replica.name].flow()
                self._wait_live(replica)

    def _wait_live(self, replica: Replica) -> None:
        began, board = time.monotonic(), replica.board
        while time.monotonic() < began + 20:
            if board.live():
                self.back_to_hits.append(time.monotonic() - began)
                return
            time.sleep(0.01)

    def cut(self, rng: random.Random) -> None:
        self._proxies[rng.choice(self._fleet.replicas).name].cut()

    def out_of_reach(self, rng: random.Random) -> None:
        replica, away = rng.choice(self._fleet.replicas), rng.uniform(0.2, 4)
        with self._alone(f"way of {replica.name}") as free:
            if free:
                self._proxies[replica.name].down()
                time.sleep(away)
                self._proxies[replica.name].up()

    def restart_postgres(self, rng: random.Random) -> None:
        with self._alone("postgres") as free:
            if free:
                self._postgres.restart(rng.uniform(0.2, 2))

    # --- nginx ---

    def stop_edge(self, rng: random.Random) -> None:
        if self.edge is not None:
            self._freeze(_children(self.edge.pid), rng.uniform(0.5, 4))

    def reload_edge(self, rng: random.Random) -> None:
        if self.edge is not None:
            self.edge.reload()

    # --- the broker ---

    def lose_messages(self, rng: random.Random) -> None:
        until = time.monotonic() + rng.uniform(0.5, 2)
        while time.monotonic() < until:
            self._delete_messages()
            time.sleep(0.005)

    def _delete_messages(self) -> None:
        for message in self._broker.iterdir():
            message.unlink(missing_ok=True)

    @contextmanager
    def losing_every_message(self) -> Iterator[None]:
        """Suspends the Celery worker during the `with` block. At the end of the block, deletes the
        messages, which the worker couldn't receive, and resumes the worker."""
        processes = [psutil.Process(self.celery.pid), *_children(self.celery.pid, deep=True)]
        _suspend(processes)
        try:
            yield
        finally:
            self._delete_messages()
            _resume(processes)

    def delay_messages(self, rng: random.Random) -> None:
        late = self._broker.parent / "late"
        late.mkdir(exist_ok=True)
        with self._alone("messages") as free:
            if not free:
                return
            until = time.monotonic() + rng.uniform(0.5, 3)
            while time.monotonic() < until:
                for message in self._broker.iterdir():
                    with suppress(FileNotFoundError):
                        message.rename(late / message.name)
                time.sleep(0.005)
            for message in late.iterdir():
                shutil.move(message, self._broker / message.name)

    # --- repairs after the last fault ---

    def mend(self) -> None:
        """Lets all proxies forward bytes again, and starts each web service and sidecar that has
        ended. The campaign calls this method after the last fault."""
        for proxy in self._proxies.values():
            proxy.flow()
        for replica in self._fleet.replicas:
            for role in ("web", "sidecar"):
                if replica.running[role].poll() is not None:
                    replica.start(role)

    def _freeze(self, processes: list[psutil.Process], seconds: float) -> None:
        _suspend(processes)
        time.sleep(seconds)
        _resume(processes)


def _suspend(processes: list[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.suspend()


def _resume(processes: list[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.resume()


def end_family(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process and all its descendants, as when a container ends."""
    family = [psutil.Process(process.pid), *_children(process.pid, deep=True)]
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    process.wait()


def _children(pid: int, *, deep: bool = False) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=deep)
    return []


def _some(rng: random.Random, processes: list[psutil.Process]) -> list[psutil.Process]:
    return [rng.choice(processes)] if processes else []


def _is_deno(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "deno" in process.name()
    return False


class Schedule(threading.Thread):
    """Injects faults at random times until the event `stop` is set. Each kind of fault occurs once
    before any kind occurs again. The seed decides the order and the pauses."""

    def __init__(
        self, injections: Injections, seed: str, per_second: float, history: History,
        stop: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(name="faults", daemon=True)
        self._kinds = injections.kinds()
        self._random = random.Random(f"{seed} faults")
        self._per_second = per_second
        self._history = history
        self._stop_asked = stop
        self._under_way: list[threading.Thread] = []
        self.broken: BaseException | None = None

    def run(self) -> None:
        deck: list[str] = []
        while not self._stop_asked.wait(self._random.expovariate(self._per_second)):
            if not deck:
                deck = self._random.sample(list(self._kinds), len(self._kinds))
            kind, rng = deck.pop(), random.Random(self._random.random())
            thread = threading.Thread(target=self._inject, args=[kind, rng], daemon=True)
            self._under_way.append(thread)
            thread.start()
        for each in self._under_way:
            each.join()

    def _inject(self, kind: str, rng: random.Random) -> None:
        start = time.time()
        try:
            self._kinds[kind](rng)
        except (psutil.NoSuchProcess, ProcessLookupError, psycopg.OperationalError):
            return  # another fault has already ended this process or connection
        except BaseException as error:
            self.broken = error
            raise
        self._history.faults.append((start, time.time(), kind))
