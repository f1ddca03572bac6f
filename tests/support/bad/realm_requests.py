"""Lists requests that a realm's endpoints refuse, mostly because of the body, a field or the
query."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.bad.bodies import BODIES
from tests.support.bad.requests import (
    ADA_IN_SITE,
    ADAS_PAGE,
    OWNER,
    PRIVATE,
    SITE,
    Case,
    endpoint,
    file,
    minted,
)
from tests.support.web import API


def asked(
    name: str,
    method: str,
    endpoint: str,
    body: Any,
    status: int,
    *says: str,
    token: str | None = ADA_IN_SITE,
    realm: str = SITE,
    length: str | None = None,
) -> Case:
    """Returns a request to an endpoint of a realm. If `body` isn't bytes, it is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return file(
        f"{endpoint} {name}", method, realm + endpoint, status, *says, body=data, token=token,
        accept=API, Content_Length=length or str(len(data)),
    )  # fmt: skip


def operations(*each: Any) -> Any:
    return {"atomic:operations": list(each)}


def operation(**changed: Any) -> Any:
    """Returns a valid operation of an `_atomic` request, with the fields in `changed` replaced. The
    value `...` removes a field."""
    right = {"op": "add", "href": "new.md",
             "data": {"type": "source", "attributes": {"content": "x"}}}  # fmt: skip
    return {key: value for key, value in {**right, **changed}.items() if value is not ...}


def card_resource(**changed: Any) -> Any:
    meta = {"adoptsFrom": {"module": "./post", "name": "Post"}}
    right = {"type": "card", "attributes": {}, "meta": meta}
    return {key: value for key, value in {**right, **changed}.items() if value is not ...}


def realm_endpoints() -> Iterator[Case]:
    """Yields requests that a realm's endpoints must refuse."""
    for query, status, says in (
        ("", 400, "module: expected it once"),
        ("?module", 400, "module: expected 1 to"),
        ("?module=%2500", 400, "module: it has a control character"),
        ("?module=%ff", 404, "was not found"),
        ("?module=%ED%A0%80", 404, "was not found"),
        ("?module=http%3A%2F%2F%5B", 400, "is not a module"),
        ("?module=@lodash", 400, "is not a module"),
        ("?module=../private/index.json", 404, "was not found"),
        ("?module=post&name", 400, "name: expected 1 to"),
        (f"?module={'a' * 3000}", 400, "module: expected 1 to"),
    ):
        yield file(f"_definition{query[:30]}", "GET", f"{SITE}_definition{query}", status, says,
                   token=None, accept=API)  # fmt: skip
    bodied = {"_atomic": "POST", "_permissions": "PATCH", "_session": "POST"}
    for name, method in bodied.items():
        token = None if name == "_session" else ADA_IN_SITE
        for kind, (body, says) in BODIES.items():
            large = len(body) > 64 * 1024
            status = 413 if large and name != "_atomic" else 400
            said = "atomic:operations" if large and name == "_atomic" else says
            yield asked(f"with {kind}", method, name, body, status, said, token=token)
        first = {"_atomic": "atomic:operations", "_permissions": "data", "_session": "username"}
        yield asked("with {}", method, name, {}, 400, first[name], token=token)
        yield asked("that says it is huge", method, name, b"", 413, "exceeds maximum", token=token,
                    length="99999999999")  # fmt: skip
    value: Any
    for value in (None, {}, "x", 3, True):
        yield asked(f"of {value!r}", "POST", "_atomic", {"atomic:operations": value}, 400,
                    "atomic:operations", "valid list")  # fmt: skip
        yield asked(f"with {value!r} as operation", "POST", "_atomic", operations(value), 400,
                    "atomic:operations.0")  # fmt: skip
        yield asked(f"with {value!r} as data", "POST", "_atomic", operations(operation(data=value)),
                    400, "atomic:operations.0.data")  # fmt: skip
        yield asked(f"with {value!r} as card", "POST", "_atomic", operations(operation(
            href="new.json", data=card_resource(attributes=value, meta=value))), 400,
            "data.card.meta")  # fmt: skip
    wrong: dict[str, tuple[Any, str]] = {
        "no op": (operation(op=...), "0.op"),
        "another op": (operation(op="remove"), "'add' or 'update'"),
        "no href": (operation(href=...), "0.href"),
        "an empty href": (operation(href=""), "0.href"),
        "a number as href": (operation(href=7), "0.href"),
        "a NUL in its href": (operation(href="a\x00b"), "NUL"),
        "no data": (operation(data=...), "0.data"),
        "an unknown type": (operation(data={"type": "file"}), "'source', 'card'"),
        "no type": (operation(data={}), "type"),
        "no content": (operation(data={"type": "source", "attributes": {}}), "content"),
        "a number as content": (
            operation(data={"type": "source", "attributes": {"content": 7}}), "valid string"),
        "half a character": (
            operation(data={"type": "source", "attributes": {"content": "\ud800"}}), "surrogate"),
        "half a character in a card": (
            operation(href="a.json", data=card_resource(attributes={"a": "\ud800"})),
            "can't be stored"),
        "a card without a type": (operation(href="a.json", data=card_resource(meta={})), "adopts"),
        "a card that is no .json": (operation(data=card_resource()), "ends in .json"),
        "an escaped byte": (operation(href="a%ff"), "UTF-8"),
        **{f"the path {path[:9]}": (operation(href=path), says) for path, says in {
            "a*b": "has a *", "a//b": "empty segment", "../b": ". or ..", "%2e%2e/b": ". or ..",
            "a/": "empty segment", ":a": "starts with :", "a%0Ab": "control character",
            "a" * 1025: "longer than 1024", SITE: "it is empty",
        }.items()},
    }  # fmt: skip
    for name, (each, says) in wrong.items():
        yield asked(f"with {name}", "POST", "_atomic", operations(each), 400, says)
    yield asked("with two that are wrong", "POST", "_atomic",
                operations(operation(op="x"), operation(), operation(href=3)), 400,
                "operations.0.op", "operations.2.href")  # fmt: skip
    for href in ("/bob/site/x.md", PRIVATE + "x.md", "http://x.localhost/x.md", "/x.md"):
        yield asked(f"at {href}", "POST", "_atomic", operations(operation(href=href)), 404,
                    f"Resource {href} does not exist")  # fmt: skip
    yield asked("of what is there", "POST", "_atomic", operations(operation(href="index.json")),
                409, "Resource index.json already exists")  # fmt: skip
    yield asked("of what is not there", "POST", "_atomic", operations(operation(op="update")), 404,
                "Resource new.md does not exist")  # fmt: skip
    yield asked("without a token", "POST", "_atomic", operations(operation()), 401, "Missing",
                token=None)  # fmt: skip
    yield asked("into a page", "POST", "_atomic", operations(operation()), 405, "published realm",
                token=minted("ada", ADAS_PAGE, OWNER), realm=ADAS_PAGE)  # fmt: skip

    def document(permissions: Any) -> Any:
        return {"data": {"type": "permissions", "attributes": {"permissions": permissions}}}

    refused: dict[str, tuple[Any, str]] = {
        "an array": (document([]), "permissions"),
        "a word for a user": (document({"@bob:localhost": "read"}), "@bob:localhost"),
        "an unknown action": (document({"@bob:localhost": ["fly"]}), "'read'"),
        "a new owner": (document({"@bob:localhost": ["realm-owner"]}), "can't be granted"),
        "everyone as owner": (document({"*": ["realm-owner"]}), "can't be granted"),
        "less for an owner": (document({"@ada:localhost": ["read"]}), "an owner's"),
        "nothing for an owner": (document({"@ada:localhost": None}), "an owner's"),
        "one that is right": (
            document({"*": ["read", "write"], "@ada:localhost": []}), "an owner's"),
        "nobody": (document({"@eve:localhost": ["read"]}), "no such user"),
        "a user of elsewhere": (document({"@bob:example.com": ["read"]}), "expected *"),
        "no user": (document({"": ["read"]}), "expected *"),
        "a NUL": (document({"@b\x00:localhost": ["read"]}), "NUL"),
        "a long name": (document({"b" * 151: ["read"]}), "expected *"),
        "another type": ({"data": {"type": "x", "attributes": {"permissions": {}}}}, "data.type"),
        "no attributes": ({"data": {"type": "permissions"}}, "data.attributes"),
    }  # fmt: skip
    for name, (body, says) in refused.items():
        yield asked(f"with {name}", "PATCH", "_permissions", body, 400, says)
    for name in ("_info", "_mtimes", "_publishability", "_permissions"):
        yield asked("of nowhere", "GET", name, b"", 404, "/no/", realm=f"{SITE}no/")
        yield asked("of a private realm", "GET", name, b"", 401, "Missing", realm=PRIVATE,
                    token=None)  # fmt: skip
    yield asked("by a reader", "GET", "_permissions", b"", 401, "permissions",
                token=minted("ada", SITE, ["read"]))  # fmt: skip
    for login in ({"username": "ada", "password": "wrong"}, {"username": "eve", "password": "eve"}):
        yield asked(f"of {login['username']}", "POST", "_session", login, 401, "password",
                    token=None)  # fmt: skip
    yield asked("with a realm's token", "POST", "_session", {}, 401, "a realm token does not open")
    yield endpoint("without a token", "_realm-auth", {}, 401, "Missing", token=None)
    yield endpoint("with a realm's token", "_realm-auth", {}, 401, "a realm token does not open",
                   token=ADA_IN_SITE)  # fmt: skip
    yield endpoint("of nobody", "_realm-auth", {}, 422, "@eve:localhost", token=minted("eve"))
    for user in ("@ada:example.com", "@", ""):
        yield file(f"as {user!r}", "GET", f"{PRIVATE}index.json", 400, "X-Boxel-Assume-User",
                   token=minted("realm_server"), X_Boxel_Assume_User=user)  # fmt: skip
    yield file("a folder that is not there", "GET", f"{SITE}none/", 404, "none/", accept=API)
    yield file("a folder without its slash", "GET", f"{SITE}none", 404, "none", accept=API)
    yield file("behind the end", "GET", f"{SITE}dot.png", 416, "264 bytes", Range="bytes=264-")
