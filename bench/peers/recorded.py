"""Stores recorded answers of the realm server, so that peers can give the same answers.

Peers are the servers that a benchmark compares with the realm server. A peer's process reads the
recorded answers from the file that the environment variable BENCH_ANSWERS names.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

Headers: TypeAlias = Sequence[tuple[str, str]]
VARIABLE = "BENCH_ANSWERS"


@dataclass(frozen=True)
class Recorded:
    """A recorded answer with status 200. A client that sends this answer's ETag in If-None-Match
    gets a 304 with the headers `headers_304`."""

    body: bytes
    headers: Headers
    headers_304: Headers

    @property
    def etag(self) -> str:
        return dict(self.headers)["etag"]


def save(path: Path, answers: Mapping[str, Recorded]) -> dict[str, str]:
    """Writes answers to the file at `path`. The keys of `answers` are URL paths. Returns the
    environment variable that tells a peer's process the file's path."""
    stored = {
        name: asdict(each) | {"body": base64.b64encode(each.body).decode()}
        for name, each in answers.items()
    }
    path.write_text(json.dumps(stored))
    return {VARIABLE: str(path)}


def saved() -> dict[str, Recorded]:
    """Returns the recorded answers by URL path, from the file that BENCH_ANSWERS names."""
    stored = json.loads(Path(os.environ[VARIABLE]).read_text())
    return {
        name: Recorded(
            base64.b64decode(each["body"]),
            [(key, value) for key, value in each["headers"]],
            [(key, value) for key, value in each["headers_304"]],
        )
        for name, each in stored.items()
    }
