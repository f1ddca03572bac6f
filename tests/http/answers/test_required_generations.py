"""Tests that a read with `X-Realm-Min-Generation: G` gets generation G or a later generation, or is
refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from realms.models import Realm
from reindex.reading.media_types import CARD, SOURCE
from tests.support import make
from tests.support.cluster import Answer
from tests.support.data.indexed import put_index
from tests.support.web import API, Web

SITE = "http://ada.localhost:4201/"


@dataclass(frozen=True)
class Asked:
    """A read request."""

    path: str
    accept: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    realm: str = SITE

    def send(self, web: Web, at_least: int) -> Answer:
        headers = {**self.headers, "X-Realm-Min-Generation": str(at_least)}
        if self.method == "GET":
            return web.get(self.realm + self.path, self.accept, **headers)
        override = {"X-HTTP-Method-Override": self.method, "Accept": self.accept}
        return web.post(self.realm + self.path, {}, headers | override)

    def __str__(self) -> str:
        return f"{self.method} {self.path} as {self.accept}"


#: Reads that are answered from the newest committed generation.
OF_FILES = [
    Asked("index.json", SOURCE),
    Asked("person", "*/*"),
    Asked("", API),
    Asked("_info", API),
    Asked("_info", API, "QUERY"),
    Asked("_mtimes", API),
    Asked("_publishability", API),
]
#: Reads that get a 503 until the required generation is rendered. If the realm hasn't reached this
#: generation yet, other reads get a 409, but these reads get a 503 even then.
WAITING = [Asked("", "text/html"), Asked("index", CARD)]
#: Reads that are answered from the newest rendered generation.
OF_INDEX = [
    *WAITING,
    Asked("_search", "*/*"),
    Asked("_search", "*/*", "QUERY"),
    Asked("sitemap.xml", "*/*"),
]


@pytest.fixture
def site(web: Web, source: Realm) -> Realm:
    """Returns a published realm. Its index is one generation older than its files."""
    make.publish(source, SITE)
    make.write(source, more__md=b"x")
    make.publish(source, SITE)
    published = Realm.objects.get(url=SITE)
    put_index(SITE, published.generation - 1, {"index": {}})
    return published


@pytest.mark.parametrize("asked", [*OF_FILES, *OF_INDEX], ids=str)
def test_a_read_has_the_required_generation_or_is_refused(
    web: Web, site: Realm, asked: Asked
) -> None:
    shown = site.generation - (asked in OF_INDEX)
    answer = asked.send(web, shown)
    assert (answer.status, answer.headers["x-realm-generation"]) == (200, str(shown))
    beyond = asked.send(web, site.generation + 1)
    assert beyond.status == (503 if asked in WAITING else 409), beyond.text
    if asked in OF_INDEX:
        assert asked.send(web, site.generation).status == 503


def test_a_preview_has_the_required_generation_or_is_refused(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    put_index(source.url, source.generation, {"index": {}})
    asked = Asked("", "text/html", headers=ada, realm=source.url)
    assert asked.send(web, source.generation).status == 200
    make.write(source, more__md=b"x")
    assert asked.send(web, source.generation).status == 503
    assert asked.send(web, source.generation + 1).status == 409


def test_a_card_that_the_shown_index_lacks_is_not_ready(web: Web, source: Realm) -> None:
    """The shown index is older than the required generation. In this index a card is missing or has
    a rendering error. That can be different at the required generation, so the read gets a 503."""
    make.publish(source, SITE)
    put_index(SITE, 1, {}, {"broken": {"message": "no"}})
    card = make.card("./person", "Person")
    make.write(source, new__json=card, broken__json=card)
    make.publish(source, SITE)
    for path, old in (("new", 404), ("broken", 500)):
        assert Asked(path, CARD).send(web, 1).status == old
        assert Asked(path, CARD).send(web, 2).status == 503


def test_a_preview_whose_rendering_failed_earlier_is_not_ready(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    put_index(source.url, source.generation, {}, {"index": {"message": "no"}})
    asked = Asked("", "text/html", headers=ada, realm=source.url)
    assert asked.send(web, source.generation).status == 500
    make.write(source, more__md=b"x")
    assert asked.send(web, source.generation).status == 503


def test_a_malformed_generation_is_refused_before_the_read(web: Web, site: Realm) -> None:
    assert web.get(f"{SITE}_search", **{"X-Realm-Min-Generation": "x"}).status == 400


def test_a_card_is_not_created_by_a_query(web: Web, source: Realm, ada: dict[str, str]) -> None:
    before = source.generation
    override = {**ada, "X-HTTP-Method-Override": "QUERY", "Accept": CARD, "Content-Type": CARD}
    body = {"data": {"type": "card", "meta": {"adoptsFrom": {"module": "./person", "name": "P"}}}}
    assert web.post(source.url, body, override).status == 405
    assert Realm.objects.get(pk=source.pk).generation == before


def test_a_write_does_not_look_at_the_required_generation(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    headers = {**ada, "X-Realm-Min-Generation": "99"}
    assert web.upload(f"{source.url}new.md", b"x", headers).status == 204
