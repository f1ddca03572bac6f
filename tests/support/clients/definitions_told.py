"""Requests `GET <realm>/_definition`, which describes the exports of a module, and reads the
answers. Tests put the modules THING and ON_SECRET into Ada's site, and the module SECRET into Bob's
private realm."""

import json
from typing import Any
from urllib.parse import quote

from definitions.models import Definition
from realms.access.auth import user_id
from realms.access.permissions import change_permissions
from realms.models import Realm
from tests.support import make
from tests.support.cluster import Answer
from tests.support.web import API, ORIGIN, Web

SITE = f"{ORIGIN}/ada/site/"
PRIVATE = f"{ORIGIN}/bob/private/"

THING = b"""\
import { Card, contains, containsMany, computed, linksToMany, number, string } from "@realm/base";
class Size extends Card { static fields = { width: number() }; }
export class Owner extends Card { static fields = { name: string({ label: "Name" }) }; }
export class Thing extends Card {
  static displayName = "A thing";
  static description = "What there is";
  static fields = {
    name: string({ description: "As it is called" }),
    tags: containsMany(string()),
    size: contains(Size),
    owners: linksToMany(() => Owner),
    length: computed((card) => card.name.length),
  };
}
"""
SECRET = b"""\
import { Card, string } from "@realm/base";
export class Secret extends Card {
  static displayName = "xyzzy";
  static fields = { word: string() };
}
"""
ON_SECRET = f"""\
import {{ string }} from "@realm/base";
import {{ Secret }} from "{PRIVATE}secret";
export class Mine extends Secret {{ static fields = {{ more: string() }}; }}
""".encode()


def ask(
    web: Web, module: str, name: str | None = None, realm: str = SITE, **headers: str
) -> Answer:
    named = f"&name={quote(name)}" if name is not None else ""
    return web.get(f"{realm}_definition?module={quote(module)}{named}", API, **headers)


def told(answer: Answer) -> Any:
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == API
    return json.loads(answer.text)


def error(answer: Answer, status: int) -> Any:
    assert answer.status == status, answer.text
    assert ".py" not in answer.text and "Traceback" not in answer.text
    (first,) = json.loads(answer.text)["errors"]
    assert first["status"] == status
    return first


def row(module: str, reader: str = "") -> Definition:
    return Definition.objects.get(module_url=module, reader=reader)


def reader(name: str, realm: Realm) -> str:
    """Returns the value of the column `reader` in the rows of definitions that were built for the
    user `name` with a token for `realm`."""
    return f"{make.account(name).pk} in {realm.pk}"


def fields(web: Web, module: str, name: str, realm: str = SITE, **headers: str) -> set[str]:
    return set(told(ask(web, module, name, realm, **headers))["data"]["attributes"]["fields"])


def let(realm: Realm, name: str, *actions: str) -> None:
    wire = name if name in ("*", "users") else user_id(name)
    change_permissions(realm, {wire: list(actions)})
