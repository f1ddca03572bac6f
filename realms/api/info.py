"""Describes a realm: its name and pictures, who may read it, and when it was published."""

from typing import Any

from realms.access.usernames import user_id
from realms.content.listing import Listed
from realms.content.resolve import resolve
from realms.errors import NotFound
from realms.models import EVERYONE, SIGNED_IN, Realm, RealmPermission
from realms.serving.contents import file_bytes
from reindex.reading.card_paths import REALM_CONFIG
from reindex.reading.strict_json import BrokenDocument, parse

UNNAMED = "Unnamed Workspace"


def realm_info(realm: Realm) -> Listed:
    """Returns the description of a realm, which is the answer of the endpoint `_info`. Raises
    NotFound if the realm was deleted."""
    found = resolve(realm.url + REALM_CONFIG)
    if found is None or found.realm_id != realm.pk:
        raise NotFound(url=realm.url)
    config = _config(file_bytes(found.file)) if found.file is not None else {}
    attributes = {
        "name": config.get("name") or UNNAMED,
        "backgroundURL": config.get("backgroundURL"),
        "iconURL": config.get("iconURL"),
        "showAsCatalog": config.get("showAsCatalog"),
        "visibility": visibility(realm),
        "realmUserId": user_id(realm.owner.get_username()) if realm.owner else None,
        "publishable": realm.publishable,
        "lastPublishedAt": _last_published(realm),
        "includePrerenderedDefaultRealmIndex": config.get("includePrerenderedDefaultRealmIndex"),
    }
    data = {"type": "realm-info", "id": realm.url, "attributes": attributes}
    return Listed(found.generation, {"data": data})


def visibility(realm: Realm) -> str:
    """Returns who may read the realm: `public` (everyone), `shared` (several users) or `private`
    (at most one user)."""
    rows = RealmPermission.objects.filter(realm=realm, read=True)
    audiences = list(rows.values_list("audience", flat=True))
    if EVERYONE in audiences:
        return "public"
    return "shared" if SIGNED_IN in audiences or len(audiences) > 1 else "private"


def milliseconds(moment: Any) -> str | None:
    """Returns a time as the number of milliseconds since 1970, in a string. Clients expect this
    form."""
    return str(int(moment.timestamp() * 1000)) if moment else None


def _last_published(realm: Realm) -> str | dict[str, str | None] | None:
    """Returns the time of a published realm's last publication. For any other realm, returns a
    dictionary that maps the URL of each realm published from it to the time of the last
    publication. Returns None if no realm is published from it."""
    if realm.kind == Realm.Kind.PUBLISHED:
        return milliseconds(realm.last_published_at)
    copies = Realm.objects.filter(source=realm).order_by("url")
    return {copy.url: milliseconds(copy.last_published_at) for copy in copies} or None


def _config(data: bytes) -> dict[str, Any]:
    """Returns the attributes of the card in `realm.json`, including those inside its attribute
    `cardInfo`. Clients write the realm's name and pictures to `cardInfo`."""
    try:
        document = parse(data, REALM_CONFIG).value
    except BrokenDocument:
        return {}
    match document:
        case {"data": {"attributes": {"cardInfo": dict(inner)} as attributes}}:
            return {**inner, **{k: v for k, v in attributes.items() if v is not None}}
        case {"data": {"attributes": dict(attributes)}}:
            return attributes
    return {}
