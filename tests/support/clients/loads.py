"""Sends requests to the application in this process. A gate (`tests/support/gates.py`) can stop
the thread of a request while it loads the content."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from notifications.listener import SECOND
from realms.serving import answers, contents
from tests.support import make
from tests.support.gates import Gate, in_thread

HOUR = 3600 * SECOND
SITE = "http://localhost:4201/ada/site/"
POST = f"{SITE}post.tsx"
MODULE = "*/*"
SOURCE = "application/vnd.card+source"
PAGE = "text/html"


@dataclass(frozen=True)
class Got:
    """The parts of an answer that tests compare."""

    status: int
    cache: str | None
    text: str


def get(url: str, accept: str = MODULE) -> Got:
    """Sends a GET request to the application in this process."""
    response = Client().get(urlsplit(url).path, HTTP_HOST="localhost:4201", HTTP_ACCEPT=accept)
    return Got(response.status_code, response.get("x-boxel-cache"), response.content.decode())


def edition(number: str) -> bytes:
    """Returns the module of `Post`, with `edition NUMBER` in place of `edition one`."""
    return make.POST_MODULE.replace("edition one", f"edition {number}").encode()


@dataclass
class DenoRuns:
    """The paths of the transpiled modules, one for each run of the transpiler."""

    paths: list[str]


#: Functions that a request calls to load content, each with the module that calls it.
MODULES: dict[str, Any] = {"resolve": answers, "javascript": contents}


def hold(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, before: bool = False) -> Gate:
    """Puts a gate at the function `name` of a module. The first call of the function waits at the
    gate before it returns. If `before` is true, the first call waits before it runs the
    function."""
    gate = Gate()
    function = getattr(module, name)
    monkeypatch.setattr(module, name, gate.before(function) if before else gate.after(function))
    return gate


def waiting(gate: Gate, url: str, accept: str = MODULE) -> "Future[Got]":
    """Starts a request in a thread, and waits until the request has arrived at the gate."""
    request = in_thread(get, url, accept)
    gate.wait_for_arrival()
    return request
