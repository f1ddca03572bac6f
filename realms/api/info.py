"""Makes a realm's description: its name and pictures, its visibility, and its publications."""

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
    """The realm's description. Raises NotFound if the realm was deleted."""
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
    """Who may read: `public` (everyone), `shared` (some other users) or `private`."""
    rows = RealmPermission.objects.filter(realm=realm, read=True)
    audiences = list(rows.values_list("audience", flat=True))
    if EVERYONE in audiences:
        return "public"
    return "shared" if SIGNED_IN in audiences or len(audiences) > 1 else "private"


def milliseconds(moment: Any) -> str | None:
    """A time as clients expect it: milliseconds since 1970 in a string."""
    return str(int(moment.timestamp() * 1000)) if moment else None


def _last_published(realm: Realm) -> str | dict[str, str | None] | None:
    """The time of a published realm's last publication. For a source realm, the times of all its
    published realms, by URL."""
    if realm.kind == Realm.Kind.PUBLISHED:
        return milliseconds(realm.last_published_at)
    copies = Realm.objects.filter(source=realm).order_by("url")
    return {copy.url: milliseconds(copy.last_published_at) for copy in copies} or None


def _config(data: bytes) -> dict[str, Any]:
    """The attributes of `realm.json`, merged with `cardInfo`, where clients write the name and the
    pictures."""
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
