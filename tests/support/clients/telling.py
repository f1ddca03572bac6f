"""Reads the answers of a realm's endpoints, and checks the headers that all of them have."""

import json
from typing import Any

from tests.support.cluster import Answer
from tests.support.web import API


def told(answer: Answer, kind: str) -> Any:
    """The `data` of an answer, after a check of its status, headers and type."""
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == API
    assert answer.headers["cache-control"].startswith("no-store")
    assert "x-realm-generation" in answer.headers
    data = json.loads(answer.text)["data"]
    assert data["type"] == kind
    return data


def attributes(answer: Answer, kind: str) -> Any:
    return told(answer, kind)["attributes"]
