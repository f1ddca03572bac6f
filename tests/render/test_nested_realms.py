"""Tests realms inside other realms, and a realm at the root of an origin. If a URL lies in several
realms, it belongs to the innermost of them."""

import json
from typing import Any

import pytest

from realms.access.auth import Caller
from realms.access.permissions import change_permissions
from realms.api.reindex_views import reindex
from realms.errors import Conflict
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import delete_realm, unpublish_realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.rendering import index_of, work_off
from tests.support.web import API, ORIGIN, Web

OUTER = f"{ORIGIN}/ada/site/"
INNER = f"{ORIGIN}/ada/docs/"
PAGE = "http://ada.localhost:4201/"
DOCS = f"{PAGE}docs/"
CARD = "application/vnd.card+json"
Sent = list[tuple[str, Any]]

PAIR = """\
import { Card, Embed, linksTo, string } from "@realm/base";
import { label } from "./docs/label.ts";
export class Pair extends Card {
  static fields = { title: string(), next: linksTo(() => Card) };
  static embedded = ({ card }) => <i>{card.title}</i>;
  static isolated = ({ card }) => <p>{label} {card.title} <Embed card={card.next} /></p>;
}
"""
PLAIN = """\
import { Card, string } from "@realm/base";
export class Plain extends Card {
  static fields = { title: string() };
  static embedded = ({ card }) => <i>{card.title}</i>;
}
"""
OUTER_FILES = {
    "pair.tsx": PAIR.encode(),
    "plain.tsx": PLAIN.encode(),
    "index.json": make.card("./pair", "Pair", {"next": "./docs/guide"}, title="home"),
    "apart.json": make.card("./plain", "Plain", title="apart"),
    "docs/label.ts": b'export const label = "outer";',
    "docs/guide.json": make.card("../plain", "Plain", title="outer guide"),
    "docs/hidden.json": make.card("../plain", "Plain", title="hidden"),
}


def inner_files(name: str = "inner") -> dict[str, bytes]:
    return {
        "plain.tsx": PLAIN.encode(),
        "label.ts": f'export const label = "{name}";'.encode(),
        "guide.json": make.card("./plain", "Plain", title=f"{name} guide"),
    }


@pytest.fixture
def outer(web: Web, owner: Any) -> Realm:
    sync_base_realm()
    return make.source(OUTER, owner, OUTER_FILES)


@pytest.fixture
def inner(web: Web, owner: Any) -> Realm:
    return make.source(INNER, owner, inner_files())


def shown(url: str = PAGE) -> str:
    """Returns the HTML of a realm's front page, with a space before each tag."""
    card = index_of(url)["index"]
    assert card.error is None, card.error
    return " ".join(str(card.html["isolated"]).replace("<", " <").split())


def test_a_page_shows_the_cards_of_an_inner_realm(outer: Realm, inner: Realm, sent: Sent) -> None:
    make.publish(inner, DOCS)
    make.publish(outer, PAGE)
    work_off(sent)
    assert "inner home" in shown() and "inner guide" in shown()
    # The outer realm's files in `docs/` have no pages. These paths belong to the inner realm.
    assert index_of(PAGE).keys() == {"index", "apart"}
    assert index_of(DOCS).keys() == {"guide"}


def test_pages_are_rendered_again_when_an_inner_realm_comes_or_goes(
    outer: Realm, inner: Realm, sent: Sent
) -> None:
    make.publish(outer, PAGE)
    work_off(sent)
    assert "outer home" in shown() and "outer guide" in shown()
    before = index_of(PAGE).keys()
    assert before == {"index", "apart", "docs/guide", "docs/hidden"}

    make.publish(inner, DOCS)
    work_off(sent)
    assert "inner home" in shown() and "inner guide" in shown()
    assert index_of(PAGE).keys() == {"index", "apart"}
    job = ReindexJob.objects.filter(realm_url=PAGE, status="done").first()
    # The card `apart` reads nothing in `docs/`, so its page is kept and not rendered again.
    assert job is not None and (job.generation, job.carried) == (2, 1)

    unpublish_realm(DOCS, Caller("ada"))
    work_off(sent)
    assert "outer home" in shown() and "outer guide" in shown()
    assert index_of(PAGE).keys() == before


def test_a_hidden_file_of_the_outer_realm_gets_no_page_when_it_changes(
    outer: Realm, inner: Realm, sent: Sent
) -> None:
    make.publish(inner, DOCS)
    make.publish(outer, PAGE)
    work_off(sent)
    make.write_paths(outer, {
        "apart.json": make.card("./plain", "Plain", title="changed"),
        "docs/guide.json": make.card("../plain", "Plain", title="changed"),
        "docs/new.json": make.card("../plain", "Plain", title="new"),
        "docs/label.ts": b'export const label = "changed";',
    })  # fmt: skip
    make.publish(outer, PAGE)
    work_off(sent)
    job = ReindexJob.objects.get(realm_url=PAGE, generation=2)
    # Only `apart` is rendered again. The inner realm hides the other changed files.
    assert (job.status, job.rendered, job.carried, job.errors) == ("done", 1, 1, 0)
    assert index_of(PAGE).keys() == {"index", "apart"}
    assert "inner home" in shown() and "inner guide" in shown()


def test_a_public_realms_page_does_not_show_a_private_inner_realm(
    outer: Realm, inner: Realm, sent: Sent
) -> None:
    make.publish(inner, DOCS)
    change_permissions(Realm.objects.get(url=DOCS), {"*": None})
    make.publish(outer, PAGE)
    work_off(sent)
    error = index_of(PAGE)["index"].error
    assert f"{DOCS}label.ts is not in a public realm" in error["message"]
    assert "inner" not in json.dumps(error) and "outer guide" not in json.dumps(error)
    change_permissions(Realm.objects.get(url=DOCS), {"*": ["read"]})
    work_off(sent)
    assert "inner home" in shown() and "inner guide" in shown()


def test_a_path_belongs_to_the_innermost_realm(
    outer: Realm, inner: Realm, owner: Any, sent: Sent
) -> None:
    deep = make.source(f"{ORIGIN}/ada/deep/", owner, inner_files("deep"))
    make.write_paths(outer, {
        "index.json": make.card("./plain", "Plain", title="home"),
        "near.json": make.card("./pair", "Pair", {"next": "./docs/deep/guide"}, title="near"),
    })  # fmt: skip
    make.write_paths(inner, {
        "far.json": make.card("./pair", "Pair", {"next": "./deep/guide"}, title="far"),
        "pair.tsx": PAIR.replace("./docs/", "./deep/").encode(),
        "deep/guide.json": make.card("../plain", "Plain", title="inner guide"),
    })  # fmt: skip
    make.publish(outer, PAGE)
    make.publish(inner, DOCS)
    make.publish(deep, f"{DOCS}deep/")
    work_off(sent)
    near = index_of(PAGE)["near"].html["isolated"]
    assert "inner" in near and "deep guide" in near
    far = index_of(DOCS)["far"].html["isolated"]
    assert "deep" in far and "deep guide" in far
    assert "deep/guide" not in index_of(DOCS)


def test_a_realm_at_the_root_does_not_hide_other_realms_of_its_origin(
    web: Web, inner: Realm, owner: Any, sent: Sent
) -> None:
    sync_base_realm()
    root = make.source(f"{ORIGIN}/", owner, {
        "pair.tsx": PAIR.replace("./docs/", "./ada/docs/").encode(),
        "plain.tsx": PLAIN.encode(),
        "index.json": make.card("./pair", "Pair", {"next": "./ada/docs/guide"}, title="root"),
    })  # fmt: skip
    reindex(root.url)
    work_off(sent)
    page = index_of(root.url)["index"]
    assert page.error is None, page.error
    assert "inner" in page.html["isolated"] and "inner guide" in page.html["isolated"]
    # After a change of the inner realm, the root realm's page is rendered again.
    make.write(inner, guide__json=make.card("./plain", "Plain", title="other guide"))
    work_off(sent)
    assert "other guide" in index_of(root.url)["index"].html["isolated"]
    assert web.get(f"{ORIGIN}/_metrics").headers.get("x-boxel-realm-url") is None
    with pytest.raises(Conflict, match=r"/base/mod\.ts is in the realm"):
        make.write_paths(root, {"base/mod.ts": b"export const Card = 1;"})


@pytest.mark.parametrize("way", ["card", "atomic", "file"])
def test_a_path_inside_an_inner_realm_cannot_be_written_in_the_outer(
    way: str, web: Web, owner: Any
) -> None:
    outer = make.source(OUTER, owner, {})
    within = make.source(f"{OUTER}Plain/", owner, {})
    login = make.realm_login(outer, "ada")
    card = json.loads(make.card("./plain", "Plain", title="lost"))
    if way == "card":
        card["data"]["lid"] = "lost"
        body = json.dumps(card).encode()
        answer = web.request(
            "POST", OUTER, accept=CARD, body=body, headers={**login, "Content-Type": CARD}
        )
    elif way == "atomic":
        operation = {"op": "add", "href": "Plain/lost.json", "data": card["data"]}
        body = json.dumps({"atomic:operations": [operation]}).encode()
        answer = web.request(
            "POST", f"{OUTER}_atomic", accept=API, body=body, headers={**login, "Content-Type": API}
        )
    else:
        # This call writes like a writer who found the outer realm before the inner realm existed.
        with pytest.raises(Conflict, match=within.url):
            make.write_paths(outer, {"Plain/lost.json": b"{}"})
        return
    assert answer.status in (404, 409), answer.text
    assert within.url in answer.text
    outer.refresh_from_db()
    assert outer.versions.count() == 0


def test_a_realm_published_within_itself_is_shown_and_deleted_with_it(
    outer: Realm, sent: Sent
) -> None:
    at = f"{OUTER}shown/"
    make.write_paths(outer, {
        "index.json": make.card("./pair", "Pair", {"next": f"{at}docs/guide"}, title="home"),
        "apart.json": make.card("./pair", "Pair", {"next": f"{OUTER}docs/guide"}, title="apart"),
    })  # fmt: skip
    make.publish(outer, at)
    work_off(sent)
    for card in ("index", "apart"):
        page = index_of(at)[card]
        assert page.error is None, page.error
        assert "outer guide" in page.html["isolated"]
    generation = outer.generation
    outer.refresh_from_db()
    assert outer.generation == generation + 1
    assert sorted(delete_realm(OUTER, Caller("ada", operator=True))) == [OUTER, at]
    assert not Realm.objects.filter(url__startswith=OUTER).exists()
