"""Keeps the idle prerenderers of a worker process. A prerenderer is a Deno process that renders
cards in a sandbox.

A worker plans a job before it renders the job's cards. If files of the job's realm have changed,
the worker starts a prerenderer during the planning. After a successful task, the worker keeps the
prerenderer for the next task. A kept prerenderer starts a new sandbox for each task, so no data of
one task reaches another.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass, replace

from django.conf import settings

from reindex.prerender import host
from reindex.prerender.host import Host, Library

#: The pool ends a prerenderer after it has been idle for REALM_PRERENDERER_SECONDS, or for
#: START_SECONDS if that is longer.
START_SECONDS = 60.0
#: The maximum number of idle prerenderers. Two are useful after a change of the card library: one
#: with the old library for the jobs that began before the change, and one with the new library.
MAX_WAITING = 2


@dataclass(frozen=True)
class _Waiting:
    """An idle prerenderer, and the timer that ends the prerenderer if no task comes."""

    host: Host
    timer: threading.Timer


class RendererPool:
    """The idle prerenderers of one worker process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: The idle prerenderers, the oldest first.
        self._waiting: list[_Waiting] = []
        self._released: Host | None = None

    @property
    def waiting(self) -> list[Host]:
        """The prerenderers that wait for a task, the oldest first."""
        with self._lock:
            return [each.host for each in self._waiting]

    def prewarm(self, library: Library) -> None:
        """Starts a prerenderer for a task that is likely to follow. Does nothing if an idle
        prerenderer with the same card library hasn't ended."""
        with self._lock:
            for each in self.waiting:
                if each.library == library.version and each.process.poll() is None:
                    return
        self._add(host.start(library))

    def acquire(self, library: Library) -> Host:
        """Returns an idle prerenderer that has the card library and is ready for a task. If there
        is none, starts and returns a new one."""
        while waiting := self._take(library):
            if waiting.is_ready():
                return waiting
            waiting.end()
        return host.start(library)

    def release(self, done: Host) -> None:
        """Takes back the prerenderer `done` after a successful task, and keeps it aside until the
        next call of `get_ready`. If another prerenderer is kept aside, ends that other one."""
        if self._released is not None:
            self._released.end()
        self._released = done

    def get_ready(self) -> None:
        """Makes the released prerenderer start a new sandbox and wait for the next task. If
        REALM_PRERENDERER_SECONDS is 0, ends this and all idle prerenderers instead. The worker
        calls `get_ready` after it has stored the results of its tasks, so that starting the sandbox
        delays no page."""
        released, self._released = self._released, None
        keeps = settings.REALM_PRERENDERER_SECONDS > 0
        if released is not None and keeps:
            with suppress(BrokenPipeError):
                released.say({})
            self._add(replace(released, kept=True))
        elif released is not None:
            released.end()
        if not keeps:
            self.shutdown()

    def shutdown(self) -> None:
        """Ends all idle prerenderers."""
        self._end_all_but(0)

    def _take(self, library: Library) -> Host | None:
        with self._lock:
            for each in self._waiting:
                if each.host.library == library.version:
                    self._waiting.remove(each)
                    each.timer.cancel()
                    return each.host
        return None

    def _add(self, added: Host) -> None:
        seconds = max(settings.REALM_PRERENDERER_SECONDS, START_SECONDS)
        timer = threading.Timer(seconds, self._end_one, [added])
        timer.daemon = True
        with self._lock:
            self._waiting.append(_Waiting(added, timer))
        timer.start()
        self._end_all_but(MAX_WAITING)

    def _end_one(self, ended: Host) -> None:
        with self._lock:
            left = [each for each in self._waiting if each.host is not ended]
            found = len(left) < len(self._waiting)
            self._waiting = left
        if found:
            ended.end()

    def _end_all_but(self, newest: int) -> None:
        with self._lock:
            ended = self._waiting[: len(self._waiting) - newest]
            del self._waiting[: len(ended)]
        for each in ended:
            each.timer.cancel()
            each.host.end()


#: The pool of this process. Only worker processes use the pool.
renderers = RendererPool()
