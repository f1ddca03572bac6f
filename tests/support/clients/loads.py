"""Requests to this process that stand still in the middle of a load, and what they got."""

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
    """What a client got."""

    status: int
    cache: str | None
    text: str


def get(url: str, accept: str = MODULE) -> Got:
    """GETs a URL from this process, as the web service answers it."""
    response = Client().get(urlsplit(url).path, HTTP_HOST="localhost:4201", HTTP_ACCEPT=accept)
    return Got(response.status_code, response.get("x-boxel-cache"), response.content.decode())


def edition(number: str) -> bytes:
    """The post's module, in another edition."""
    return make.POST_MODULE.replace("edition one", f"edition {number}").encode()


@dataclass
class DenoRuns:
    """Every start of the transpiler, by path."""

    paths: list[str]


#: Where each step of a load is called.
MODULES: dict[str, Any] = {"resolve": answers, "javascript": contents}


def hold(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, before: bool = False) -> Gate:
    """Puts a gate at a function: its first caller waits there with its work done, or before it."""
    gate = Gate()
    function = getattr(module, name)
    monkeypatch.setattr(module, name, gate.before(function) if before else gate.after(function))
    return gate


def waiting(gate: Gate, url: str, accept: str = MODULE) -> "Future[Got]":
    """A request that has got as far as the gate."""
    request = in_thread(get, url, accept)
    gate.wait_for_arrival()
    return request
