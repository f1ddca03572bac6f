"""Makes users, realms, cards and publications for tests."""

import json
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from realms.access.auth import Caller, server_token
from realms.content.files import delete_files, write_files
from realms.content.locks import realm_write_lock
from realms.models import EVERYONE, Realm, RealmPermission
from realms.publishing.publish import Published, make_realm, publish_realm

POST_MODULE = """\
import { Card, linksTo, Markdown, markdown, string } from "@realm/base";
import { Person } from "./person.tsx";
export class Post extends Card {
  static displayName = "Post";
  static fields = { title: string(), body: markdown(), author: linksTo(() => Person) };
  static isolated = ({ card }) => (
    <article><h1>{card.title}</h1><p>edition one</p><Markdown text={card.body} /></article>
  );
}
"""
PERSON_MODULE = """\
import { Card, string } from "@realm/base";
export class Person extends Card {
  static displayName = "Person";
  static fields = { name: string() };
}
"""


def card(
    module: str, name: str, /, links: Mapping[str, str] | None = None, **attributes: Any
) -> bytes:
    """Returns the JSON file of a card."""
    relationships = {key: {"links": {"self": link}} for key, link in (links or {}).items()}
    document = {
        "data": {
            "type": "card",
            "attributes": attributes,
            "relationships": relationships,
            "meta": {"adoptsFrom": {"module": module, "name": name}},
        }
    }
    return json.dumps(document).encode()


SITE: dict[str, bytes] = {
    "post.tsx": POST_MODULE.encode(),
    "person.tsx": PERSON_MODULE.encode(),
    "index.json": card("./post", "Post", title="Home", body="old bytes", links={"author": "./ada"}),
    "ada.json": card("./person", "Person", name="Ada"),
    "dot.png": bytes.fromhex("89504e470d0a1a0a") + bytes(range(256)),
}


def old_user(name: str) -> Any:
    """Creates a user without a check of the name. Tests need invalid names, because old databases
    may have users with such names."""
    password = PBKDF2PasswordHasher().encode(name, "salt", iterations=1)
    (made,) = get_user_model().objects.bulk_create(
        [get_user_model()(username=name, password=password)]
    )
    return made


def user(name: str) -> Any:
    """Creates a user. The password is the same as the name. Hashes the password with only one
    iteration, which is fast."""
    password = PBKDF2PasswordHasher().encode(name, "salt", iterations=1)
    return get_user_model().objects.create(username=name, password=password)


def account(name: str) -> Any:
    """Returns the account with this name."""
    return get_user_model().objects.get(username=name)


def source(url: str, owner: Any, files: Mapping[str, bytes], *, public: bool = True) -> Realm:
    """Creates a source realm at generation 1, and writes `files` into it, which makes generation 2.
    If `public` is true, everyone may read the realm."""
    with realm_write_lock(url):
        realm = make_realm(url, Realm.Kind.SOURCE, owner)
        if public:
            RealmPermission.objects.create(realm=realm, audience=EVERYONE, read=True)
        write_files(realm, files)
    return realm


def write(realm: Realm, **files: bytes) -> int:
    """Writes files and returns the realm's new generation. Each further argument is a file. Its
    name is the file's path, with `__` in place of the dot."""
    return write_paths(realm, {name.replace("__", "."): data for name, data in files.items()})


def write_paths(realm: Realm, files: Mapping[str, bytes]) -> int:
    """Writes files and returns the realm's new generation. The keys of `files` are the paths."""
    with realm_write_lock(realm.url):
        realm.refresh_from_db()
        write_files(realm, files)
    return realm.generation


def remove(realm: Realm, *paths: str) -> int:
    """Deletes files and returns the realm's new generation."""
    with realm_write_lock(realm.url):
        realm.refresh_from_db()
        return delete_files(realm, paths)


def publish(realm: Realm, url: str) -> Published:
    """Publishes a realm at a URL, as the realm's owner."""
    assert realm.owner is not None
    return publish_realm(realm.url, url, Caller.of(realm.owner))


def login(name: str) -> dict[str, str]:
    """Returns an Authorization header with a token for the server's own endpoints. The token names
    the user but no account. Clients that have REALM_SECRET_SEED can sign such tokens too."""
    return {"Authorization": server_token(name)}


def realm_login(realm: Realm, name: str) -> dict[str, str]:
    """Returns an Authorization header with a token for the endpoints of one realm. The token lists
    the permissions that the user has in the realm now."""
    from realms.access.auth import permissions_of, realm_token

    allowed = sorted(permissions_of(realm, Caller(name)))
    return {"Authorization": realm_token(name, realm.url, allowed, 3600)}
