"""Asking one replica by itself, as a visitor would: its own address, the public URL's Host.

An answer is read whole and reduced to what can be compared. Whatever is no answer at all (nobody
listens, a time-out, an error of the server, another replica at that address) is `NoAnswer`.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, urlsplit

import urllib3

from realms.access.auth import OPERATOR, server_token
from realms.coherence.rules import Observation
from realms.http.accept import SOURCE
from realms.serving.contents import Variant

CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
#: How many questions one replica is asked at the same time.
AT_ONCE = 4
#: Longer than any run; signed anew for each.
TOKEN_SECONDS = 24 * 3600

_ACCEPT = {Variant.SOURCE: SOURCE, Variant.MODULE: "*/*", Variant.HTML: "text/html"}


class NoAnswer(Exception):
    """The replica could not be asked; the message says why."""


@dataclass(frozen=True)
class Question:
    """A variant of a file of a realm. `private` sends the operator's token along."""

    realm_url: str
    path: str
    variant: Variant
    private: bool = False

    @property
    def url(self) -> str:
        """Absolute and unescaped."""
        return self.realm_url + self.path


class ReplicaClient:
    """One replica, with threads that ask it. Close it when done."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"ask-{name}")
        self._token = server_token(OPERATOR, TOKEN_SECONDS)

    def line(self) -> "Connection":
        """A connection of its own, for one question and its repetitions."""
        return Connection(self)

    def submit(self, line: "Connection", question: Question) -> "Future[Observation]":
        """Asks in a thread. The future raises NoAnswer."""
        return self._threads.submit(line.ask, question, self._token)

    def close(self) -> None:
        """Waits for the questions that are on their way."""
        self._threads.shutdown(cancel_futures=True)


class Connection:
    """A connection that is kept between questions, so that one web worker answers them all: each
    has caches of its own, and another's right answer says nothing about the first one's wrong."""

    def __init__(self, asked: ReplicaClient) -> None:
        self._asked = asked
        self._pool = urllib3.connection_from_url(
            asked.address,
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        )

    def ask(self, question: Question, token: str) -> Observation:
        """The replica's answer. Raises NoAnswer."""
        parts = urlsplit(question.realm_url)
        target = parts.path + quote(question.path, safe="/:@!$&'()+,;=~-._")
        headers = {"Host": parts.netloc, "Accept": _ACCEPT[question.variant]}
        if question.private:
            headers["Authorization"] = token
        sent_at = time.monotonic()
        try:
            answer = self._pool.request("GET", target, headers=headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NoAnswer(_plainly(error)) from error
        at = time.monotonic()
        told = {name.lower(): value for name, value in answer.headers.items()}
        worker = told.get("x-realm-replica", "")
        if worker.partition("/")[0] != self._asked.name:
            who = f"replica {worker.partition('/')[0]}" if worker else "something else"
            raise NoAnswer(f"{who} answers at its address")
        generation = told.get("x-realm-generation")
        if generation is None and answer.status >= 500:
            raise NoAnswer(f"it answered {answer.status}")
        if question.private and answer.status in (401, 403):
            raise NoAnswer(f"it refused the operator's token ({answer.status})")
        return Observation(
            sent_at=sent_at,
            at=at,
            worker=worker,
            realm_url=told.get("x-boxel-realm-url"),
            generation=int(generation) if generation and generation.isdigit() else None,
            status=answer.status,
            digest=sha256(answer.data).hexdigest(),
            location=told.get("location"),
            public="x-boxel-realm-public-readable" in told,
        )

    def close(self) -> None:
        """Ends the connection."""
        self._pool.close()


def _plainly(error: Exception) -> str:
    """An error without the objects that urllib3 names in it."""
    # The first is a kind of the second.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return str(error).partition(": ")[2] or "no connection"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"no answer within {READ_SECONDS:g} s"
    return f"{type(error).__name__}: {error}"
