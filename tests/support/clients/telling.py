"""Reads the answers of a realm's endpoints, and checks the headers that every answer must have."""

import json
from typing import Any

from tests.support.cluster import Answer
from tests.support.web import API


def told(answer: Answer, kind: str) -> Any:
    """Checks the status, headers and type of an answer, and returns the answer's `data`."""
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == API
    assert answer.headers["cache-control"].startswith("no-store")
    assert "x-realm-generation" in answer.headers
    data = json.loads(answer.text)["data"]
    assert data["type"] == kind
    return data


def attributes(answer: Answer, kind: str) -> Any:
    return told(answer, kind)["attributes"]
