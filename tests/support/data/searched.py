"""Contains cards of several types for a realm's index, and searches the index with requests of the
HTTP method QUERY."""

import json
from typing import Any

from tests.support import make
from tests.support.cluster import Answer
from tests.support.data.indexed import search_document
from tests.support.web import Web

SITE = "http://ada.localhost:4201/"
SEARCH = f"{SITE}_search"
CARD = "application/vnd.card+json"
POST = {"module": "./post", "name": "Post"}
ESSAY = {"module": "./essay.tsx", "name": "Essay"}
EVENT = {"module": "./event", "name": "Event"}

PERSON_LINK = {"id": "id", "name": "string", "born": "date", "friends": [{"id": "id"}]}
POST_FIELDS = {
    "title": "string",
    "body": "markdown",
    "likes": "number",
    "draft": "boolean",
    "tags": ["string"],
    "author": PERSON_LINK,
    "editors": [PERSON_LINK],
    "place": {"city": "string", "seats": "number"},
    "parts": [{"heading": "string"}],
    "words": "any",
}
ESSAY_FIELDS = {**POST_FIELDS, "footnotes": "number"}
EVENT_FIELDS = {"title": "string", "starts": "date", "likes": "string"}

ADA = {"id": f"{SITE}ada", "name": "Ada", "born": "1815-12-10T00:00:00.000Z", "friends": []}
BO = {"id": f"{SITE}bo", "name": "Bo", "born": None, "friends": [{"id": f"{SITE}ada"}]}


def _post(path: str, **values: Any) -> dict[str, Any]:
    return search_document(SITE + path, f"{SITE}post", "Post", POST_FIELDS, **values)


CARDS: dict[str, dict[str, Any]] = {
    "one": _post(
        "one", title="Lanterns of the north", body="Fog and 100% rain", likes=3, draft=False,
        tags=["sea", "light"], author=ADA, editors=[BO], place={"city": "Oslo", "seats": 4},
        parts=[{"heading": "First"}, {"heading": "Second"}], words=12,
    ),
    "two": _post(
        "two", title="apples", body="Nothing_at all", likes=10, draft=True, tags=[],
        author=BO, editors=[ADA, BO], place={"city": "Rome", "seats": None}, parts=[], words="ten",
    ),
    "deep/three": search_document(
        f"{SITE}deep/three", f"{SITE}essay", "Essay", ESSAY_FIELDS, adopts=(f"{SITE}post/Post",),
        title="Zebras", body="Stripes", likes=-1.5, draft=False, tags=["sea"], author=None,
        editors=[], place=None, parts=[{"heading": "second thoughts"}], words=None, footnotes=2,
    ),
    "ball": search_document(
        f"{SITE}ball", f"{SITE}event", "Event", EVENT_FIELDS,
        title="Ball", starts="2026-03-01T09:30:00.000Z", likes="many",
    ),
    "fair": search_document(
        f"{SITE}fair", f"{SITE}event", "Event", EVENT_FIELDS,
        title="Fair", starts="2026-11-22T00:00:00.000Z", likes=None,
    ),
}  # fmt: skip


def files() -> dict[str, bytes]:
    """Returns the files of the cards in `CARDS`. A search finds cards in the index, and its answer
    has the content of their files."""
    names = {"post": "Post", "essay": "Essay", "event": "Event"}
    found = {}
    for path, document in CARDS.items():
        module = document["_type"]["module"].rsplit("/", 1)[-1]
        reference = f"{'../' * path.count('/') or './'}{module}"
        found[f"{path}.json"] = make.card(reference, names[module], title=document["title"])
    return found


def query(web: Web, body: Any, url: str = SEARCH, **headers: str) -> Answer:
    """Sends a search as a QUERY request. If `body` isn't bytes, sends it as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.request("QUERY", url, accept=CARD, body=data, headers=headers)


def found(answer: Answer) -> list[str]:
    """Asserts that a search succeeded, and returns the paths of the cards in its answer."""
    assert answer.status == 200, answer.body
    return [card["id"].removeprefix(SITE) for card in json.loads(answer.body)["data"]]


def told(answer: Answer) -> dict[str, Any]:
    """Asserts that an answer contains exactly one error, and returns the error."""
    errors = json.loads(answer.body)["errors"]
    assert len(errors) == 1
    return dict(errors[0])
