"""Sends requests to one replica as a visitor would. Each request goes to the replica's own address
and has the public URL's Host header.

The client reads each answer completely and keeps only the parts that the verifier
(`manage.py verify_coherence`) compares. The client raises `NoAnswer` for a failed connection, a
time-out, a server error, a refused operator's token, or an answer of another replica.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, urlsplit

import urllib3

from notifications.texts import whole_number
from realms.access.auth import OPERATOR, server_token
from realms.coherence.rules import Observation
from realms.serving.contents import Variant
from reindex.reading.media_types import ANY, HTML, SOURCE

CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
#: The maximum number of concurrent requests to one replica.
AT_ONCE = 4
#: The lifetime of the token that each client signs. A client never renews its token, so a run of
#: the verifier must be shorter than this lifetime. Unit: seconds.
TOKEN_SECONDS = 24 * 3600

_ACCEPT = {Variant.SOURCE: SOURCE, Variant.MODULE: ANY, Variant.HTML: HTML}


class NoAnswer(Exception):
    """The replica gave no usable answer. The message says why."""


@dataclass(frozen=True)
class Question:
    """A request for a variant of a realm's file. With `private`, the client sends the operator's
    token."""

    realm_url: str
    path: str
    variant: Variant
    private: bool = False

    @property
    def url(self) -> str:
        """The absolute, unescaped URL."""
        return self.realm_url + self.path


class ReplicaClient:
    """A client of one replica, with threads that send requests. The caller must close the
    client."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"ask-{name}")
        self._token = server_token(OPERATOR, TOKEN_SECONDS)

    def line(self) -> "Connection":
        """Returns a new connection. The caller uses the connection for one question and its
        repetitions."""
        return Connection(self)

    def submit(self, line: "Connection", question: Question) -> "Future[Observation]":
        """Sends the question in a thread. The future raises NoAnswer if the replica gives no usable
        answer."""
        return self._threads.submit(line.ask, question, self._token)

    def close(self) -> None:
        """Waits for the running requests and drops the queued requests."""
        self._threads.shutdown(cancel_futures=True)


class Connection:
    """A connection that stays open between requests, so that the same web worker answers all of
    them. Each web worker has its own caches, so a right answer of one web worker doesn't show that
    another web worker answers rightly."""

    def __init__(self, client: ReplicaClient) -> None:
        self._client = client
        self._pool = urllib3.connection_from_url(
            client.address,
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        )

    def ask(self, question: Question, token: str) -> Observation:
        """Sends a question and returns the replica's answer. Raises NoAnswer if the replica gives
        no usable answer."""
        parts = urlsplit(question.realm_url)
        target = parts.path + quote(question.path, safe="/:@!$&'()+,;=~-._")
        headers = {"Host": parts.netloc, "Accept": _ACCEPT[question.variant]}
        if question.private:
            headers["Authorization"] = token
        sent_at = time.monotonic()
        try:
            answer = self._pool.request("GET", target, headers=headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NoAnswer(plainly(error)) from error
        at = time.monotonic()
        received = {name.lower(): value for name, value in answer.headers.items()}
        worker = received.get("x-realm-replica", "")
        if worker.partition("/")[0] != self._client.name:
            who = f"replica {worker.partition('/')[0]}" if worker else "something else"
            raise NoAnswer(f"the replica's address leads to {who}")
        generation = received.get("x-realm-generation")
        if generation is None and answer.status >= 500:
            raise NoAnswer(f"it answered {answer.status}")
        if question.private and answer.status in (401, 403):
            raise NoAnswer(f"it refused the operator's token ({answer.status})")
        return Observation(
            sent_at=sent_at,
            at=at,
            worker=worker,
            realm_url=received.get("x-boxel-realm-url"),
            generation=whole_number(generation or ""),
            status=answer.status,
            digest=sha256(answer.data).hexdigest(),
            location=received.get("location"),
            public="x-boxel-realm-public-readable" in received,
        )

    def close(self) -> None:
        """Closes the connection."""
        self._pool.close()


def plainly(error: Exception) -> str:
    """Returns the error's message without the names of urllib3's objects."""
    # Check NewConnectionError first, because it is a subclass of ConnectTimeoutError.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return str(error).partition(": ")[2] or "no connection"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"
