"""Sends and reads cards as JSON over HTTP."""

import json
from typing import Any

from tests.support.cluster import Answer
from tests.support.web import ORIGIN, SOURCE, Web

DRAFT = f"{ORIGIN}/ada/site/"
CARD = "application/vnd.card+json"


def send(
    web: Web, method: str, url: str, data: Any, headers: dict[str, str], **more: str | None
) -> Answer:
    """Sends a request with `data` in a card document. If `data` is bytes, they are the request's
    whole body. In the names of further headers (`more`), underscores become dashes."""
    body = data if isinstance(data, bytes) else json.dumps({"data": data}).encode()
    told: dict[str, str | None] = {"Content-Type": CARD, **headers}
    told |= {key.replace("_", "-"): value for key, value in more.items()}
    return web.request(method, url, accept=CARD, body=body, headers=told)


def data(answer: Answer) -> dict[str, Any]:
    """Checks that an answer has a card, and returns the `data` of the card's document."""
    assert answer.status in (200, 201), answer.body
    assert answer.headers["content-type"] == CARD
    return dict(json.loads(answer.body)["data"])


def stored(web: Web, url: str) -> Any:
    """Requests a card's file and returns the `data` of the card's document."""
    return json.loads(web.get(f"{url}.json", SOURCE).body)["data"]
