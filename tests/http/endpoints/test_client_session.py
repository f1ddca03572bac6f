"""Sends all requests of a command-line client's session over a socket, in the client's order.

Existing clients rely on each step, as the comments explain.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from realms.access.auth import OPERATOR, realm_token, server_token
from realms.models import Realm
from reindex.models import IndexHead, ReindexJob
from tests.support import make
from tests.support.cluster import Answer
from tests.support.web import API, ORIGIN, SOURCE, Web

REALM = f"{ORIGIN}/ada/blog/"
PAGE = "http://ada.localhost:4201/blog/"
READY = f"{PAGE}_readiness-check?awaitPrerenderHtml=true"
JSON = "application/json"


class Client:
    """A command-line client, which keeps its tokens between requests and sends them without
    `Bearer`."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.server = self.realm = ""

    def ask(
        self, method: str, url: str, token: str = "", *, accept: str = API,
        content_type: str | None = JSON, body: Any = None, raw: bytes | None = None,
    ) -> Answer:  # fmt: skip
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        headers = {"Authorization": token or None}
        if data is not None:
            headers["Content-Type"] = content_type
        return self.web.request(method, url, accept=accept, body=data, headers=headers)

    def mtimes(self) -> dict[str, float]:
        answer = self.ask("GET", f"{REALM}_mtimes", self.realm)
        assert answer.status == 200
        return dict(json.loads(answer.text)["data"]["attributes"]["mtimes"])

    def publish(self) -> Answer:
        body = {"sourceRealmURL": REALM, "publishedRealmURL": PAGE.removesuffix("/")}
        return self.ask("POST", f"{ORIGIN}/_publish-realm", self.server, body=body)

    def unpublish(self) -> Answer:
        body = {"publishedRealmURL": PAGE}
        return self.ask("POST", f"{ORIGIN}/_unpublish-realm", self.server, body=body)


@pytest.fixture
def client(web: Web, owner: Any) -> Client:
    """Returns a client that has signed in and created its realm."""
    client = Client(web)
    login = {"username": "ada", "password": "ada"}
    signed_in = client.ask("POST", f"{ORIGIN}/_server-session", accept=JSON, body=login)
    assert (signed_in.status, signed_in.body) == (201, b"")
    client.server = signed_in.headers["authorization"]

    create = {"data": {"type": "realm", "attributes": {"endpoint": "blog", "name": "Blog"}}}
    made = client.ask("POST", f"{ORIGIN}/_create-realm", client.server, body=create)
    assert 200 <= made.status < 300
    assert json.loads(made.text)["data"]["id"] == REALM
    again = client.ask("POST", f"{ORIGIN}/_create-realm", client.server, body=create)
    assert again.status == 400
    # From this message, the client learns that the realm already exists, and reads the realm's URL.
    found = re.search(r"'(.+?)' already exists", json.loads(again.text)["errors"][0])
    assert found is not None
    assert found[1] == REALM

    tokens = client.ask("POST", f"{ORIGIN}/_realm-auth", client.server, accept=JSON, body={})
    client.realm = json.loads(tokens.text)[REALM]
    opened = client.ask("POST", f"{REALM}_session", accept=JSON, body=login)
    assert opened.status == 201
    client.realm = opened.headers["authorization"]
    return client


def rendered() -> None:
    """Marks the queued job as done, so that the readiness check reports the realm as ready."""
    job = ReindexJob.objects.get(realm_url=PAGE, status="queued")
    ReindexJob.objects.filter(pk=job.pk).update(status="done")
    IndexHead.objects.update_or_create(
        realm_url=PAGE,
        defaults={"job": job, "generation": job.generation, "swapped_at": datetime.now(UTC)},
    )


def test_a_client_pushes_compares_and_pulls(client: Client) -> None:
    # The token works with and without `Bearer`.
    for token in (client.realm, f"Bearer {client.realm}"):
        assert client.ask("GET", f"{REALM}_info", token).status == 200
    before = client.mtimes()
    assert set(before) == {f"{REALM}realm.json", f"{REALM}index.json"}, "absolute URLs"

    # The client sends a text file in a request of its own. Accept is card+source, and Content-Type
    # is card+source or text/plain.
    for content_type in (SOURCE, "text/plain;charset=UTF-8"):
        answer = client.ask(
            "POST", f"{REALM}notes.md", client.realm,
            accept=SOURCE, content_type=content_type, raw="Grüße".encode(),
        )  # fmt: skip
        assert answer.status == 204
    # The client sends a file that is binary, or has an unknown extension, in a request of its own.
    # Accept is */*, so only Content-Type selects the endpoint.
    for name in ("dot.png", "data.xyzzy"):
        answer = client.ask(
            "POST", REALM + name, client.realm,
            accept="*/*", content_type="application/octet-stream", raw=make.SITE["dot.png"],
        )  # fmt: skip
        assert answer.status == 204

    # The client sends its remaining text files in one `_atomic` request. The client needs exactly
    # the status 201, and one result for each file in the order of the operations.
    names = ["post.tsx", "person.tsx", "ada.json", "index.json"]
    operations = [
        {
            "op": "update" if name == "index.json" else "add",
            "href": name,
            "data": {
                "type": "source", "attributes": {"content": make.SITE[name].decode()}, "meta": {}
            },
        }
        for name in names
    ]  # fmt: skip
    atomic = {"atomic:operations": operations}
    pushed = client.ask(
        "POST", f"{REALM}_atomic?waitForIndex=true", client.realm, content_type=API, body=atomic
    )
    assert pushed.status == 201
    results = json.loads(pushed.text)["atomic:results"]
    assert [each["data"]["id"] for each in results] == [REALM + name for name in names]
    refused = client.ask("POST", f"{REALM}_atomic", client.realm, content_type=API, body=atomic)
    # Each error contains the href of a file that already exists. The client reads the href from the
    # error, and turns the operation with this href into an update.
    there = [each["detail"] for each in json.loads(refused.text)["errors"]]
    assert refused.status == 409
    matches = [re.search(r"Resource (\S+) ", detail) for detail in there]
    assert [match and match[1] for match in matches] == names[:3]

    # New and changed files have new mtimes. All other mtimes are the same.
    after = client.mtimes()
    assert {url for url, at in after.items() if before.get(url) != at} == {
        REALM + name for name in (*names, "notes.md", "dot.png", "data.xyzzy")
    }
    assert client.mtimes() == after
    listed = client.ask("GET", REALM, client.realm)
    assert set(json.loads(listed.text)["data"]["relationships"]) == {
        url.removeprefix(REALM) for url in after
    }

    # Downloads have the right content type.
    for name, content_type in {
        "dot.png": "image/png",
        "notes.md": "text/markdown; charset=utf-8",
        "post.tsx": "text/typescript; charset=utf-8",
        "ada.json": "application/json",
        "data.xyzzy": "application/octet-stream",
    }.items():
        got = client.ask("GET", REALM + name, client.realm, accept=SOURCE)
        assert (got.status, got.headers["content-type"]) == (200, content_type)
        assert got.body == make.SITE.get(name, "Grüße".encode() if name == "notes.md" else got.body)
    gone = client.ask("DELETE", f"{REALM}notes.md", client.realm, accept=SOURCE)
    assert gone.status == 204
    assert f"{REALM}notes.md" not in client.mtimes()


def test_a_client_publishes_polls_and_unpublishes(client: Client) -> None:
    report = client.ask("GET", f"{REALM}_publishability", client.realm)
    assert report.status == 200, "exactly"
    assert json.loads(report.text)["data"]["attributes"]["publishable"] is True

    # With its option --tolerate-missing, the client doesn't fail if the realm isn't published. The
    # client recognizes this case by the status 422 and the words "not found".
    missing = client.unpublish()
    assert missing.status == 422
    assert re.search("not found", missing.text, re.IGNORECASE)

    published = client.publish()
    assert published.status == 202
    assert json.loads(published.text)["data"]["attributes"]["publishedRealmURL"] == PAGE

    # The client polls the readiness check until the status is 2xx. The client sends a token for a
    # realm that doesn't exist. The check is public, so the token doesn't matter.
    nonsense = realm_token(OPERATOR, f"{PAGE}_readiness-check/", [], 60)
    waiting = client.ask("GET", READY, nonsense)
    assert (waiting.status, waiting.headers["retry-after"]) == (503, "1")
    rendered()
    assert client.ask("GET", READY, nonsense).status == 200

    moment = json.loads(published.text)["data"]["attributes"]["lastPublishedAt"]
    info = client.ask("GET", f"{REALM}_info", client.realm)
    assert json.loads(info.text)["data"]["attributes"]["lastPublishedAt"] == {PAGE: moment}

    again = client.publish()
    assert again.status == 202
    assert client.ask("GET", READY).status == 503, "the realm isn't ready with its old pages"

    taken_down = client.unpublish()
    assert taken_down.status == 200
    assert json.loads(taken_down.text)["data"]["attributes"]["publishedRealmURL"] == PAGE
    assert client.unpublish().status == 422
    assert client.ask("GET", READY).status == 404


def test_a_publish_over_another_users_realm_is_a_403(client: Client) -> None:
    """The status must be 403, because a client that gets 400 or 409 from a publish unpublishes the
    target and retries."""
    bobs = make.source(f"{ORIGIN}/bob/blog/", make.user("bob"), make.SITE)
    make.publish(bobs, PAGE)
    assert client.publish().status == 403
    assert client.unpublish().status == 403
    assert Realm.objects.get(url=PAGE).source == bobs


def test_a_client_with_the_seed_needs_no_password(client: Client) -> None:
    """A client that knows the secret seed (REALM_SECRET_SEED) signs two tokens itself. One is the
    operator's token for a realm, and the other is the owner's token for the server."""
    client.realm = realm_token(OPERATOR, REALM, [], 60)
    client.server = server_token("ada", 7 * 24 * 3600)
    answer = client.ask(
        "POST", f"{REALM}notes.md", client.realm, accept=SOURCE, content_type=SOURCE, raw=b"x"
    )
    assert answer.status == 204
    assert client.ask("GET", f"{REALM}_permissions", client.realm).status == 200
    assert client.publish().status == 202
    deleted = client.ask(
        "DELETE", f"{ORIGIN}/_delete-realm", client.server,
        body={"data": {"type": "realm", "id": REALM}},
    )  # fmt: skip
    assert (deleted.status, deleted.body) == (204, b"")
    assert client.ask("GET", READY).status == 404
