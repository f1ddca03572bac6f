"""Every channel's name, its payloads, and the board keys that a payload moves. Pure functions.

The caches of other machines depend on the form of the payloads, so this module defines it for the
emitters and the listener. The database triggers build some payloads in SQL; they take the channels'
names and the limits from here. Parsers accept any text; they return None for an invalid payload and
never raise.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

REALM_FILE_CHANGES = "realm_file_changes"
DEFINITION_CACHE_INVALIDATED = "definition_cache_invalidated"
#: The older name of the definitions' channel. Always listened to, emitted on request.
MODULE_CACHE_INVALIDATED = "module_cache_invalidated"
REALM_REGISTRY = "realm_registry"
REALM_INDEX_SWAPPED = "realm_index_swapped"
REALM_HEARTBEAT = "realm_heartbeat"
#: The spans that changes belong to. Moves nothing; listened to only where traces are sent.
REALM_TRACES = "realm_traces"

#: The path that stands for every path of a realm.
WILDCARD = "*"

#: Postgres refuses payloads of 8,000 bytes; ours stay well below. Unit: bytes of UTF-8.
PAYLOAD_BUDGET = 7_000

#: A statement that touches more paths than this is announced as one wildcard.
MAX_PATHS_PER_STATEMENT = 32


# --- Board keys --------------------------------------------------------------------------------


def realm_key(realm_url: str) -> str:
    """Moves when a realm is created or deleted, when its row (other than the generation and the
    totals) or its permissions change, and when its pages are published at another URL. Also moves
    when all its files count as changed: after a publish, or a write of very many files."""
    return f"realm|{realm_url}"


def path_key(url: str) -> str:
    """Moves when the file at this absolute URL is written or deleted. If one statement touches very
    many files of a realm, the key of the realm moves instead."""
    return f"path|{url}"


def index_key(realm_url: str) -> str:
    """Moves when a realm's prerendered pages are swapped."""
    return f"index|{realm_url}"


def definitions_key(scope: str, key: str = "") -> str:
    """Moves when the definitions of `scope` (`global`, `realm`, `module`) are invalidated."""
    return f"definitions|{scope}|{key}"


#: The name by which shared caches know the answers of all realms.
EVERY_REALM = "realms"


def surrogate_key(realm_url: str) -> str:
    """The name by which shared caches know the answers of a realm. It is a hash: a realm's URL may
    hold characters that mean something in a cache's language."""
    name = realm_url.encode(errors="surrogatepass")
    return f"realm-{hashlib.blake2b(name, digest_size=8).hexdigest()}"


# --- Payloads ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Notification:
    """One NOTIFY: a channel and its payload."""

    channel: str
    payload: str


@dataclass(frozen=True)
class FileChange:
    """`path` of the realm at `realm_url` changed; a path of `*` means all of them."""

    realm_url: str
    path: str


@dataclass(frozen=True)
class Heartbeat:
    """A listener's ping to itself: its replica, a sequence number, and when it was sent (ns)."""

    replica: str
    sequence: int
    sent_at: int


def file_change(realm_url: str, path: str) -> Notification:
    """The notification for one path, or for the whole realm if the path is too long to send."""
    payload = f"{realm_url}:{path}"
    if len(payload.encode()) > PAYLOAD_BUDGET:
        payload = f"{realm_url}:{WILDCARD}"
    return Notification(REALM_FILE_CHANGES, payload)


def all_files_changed(realm_url: str) -> Notification:
    """The notification that makes every cached answer of a realm stale."""
    return Notification(REALM_FILE_CHANGES, f"{realm_url}:{WILDCARD}")


def parse_file_change(payload: str | None) -> FileChange | None:
    """Splits a payload at the first `/:`, so the colons of scheme and port stay in the URL."""
    realm_url, separator, path = (payload or "").partition("/:")
    if not separator or not realm_url or not path:
        return None
    return FileChange(f"{realm_url}/", path)


def modules_invalidated(realm_url: str, module_urls: Iterable[str]) -> list[Notification]:
    """As many notifications as the URLs need; or one for the whole realm if a URL is too long."""
    payloads: list[str] = []
    batch: list[str] = []
    for url in module_urls:
        if _size(_modules_payload(realm_url, [url])) > PAYLOAD_BUDGET:
            return [realm_definitions_cleared(realm_url)]
        if batch and _size(_modules_payload(realm_url, [*batch, url])) > PAYLOAD_BUDGET:
            payloads.append(_modules_payload(realm_url, batch))
            batch = []
        batch.append(url)
    if batch:
        payloads.append(_modules_payload(realm_url, batch))
    return [Notification(DEFINITION_CACHE_INVALIDATED, payload) for payload in payloads]


def realm_definitions_cleared(realm_url: str) -> Notification:
    """The notification that every definition of a realm was dropped."""
    return Notification(
        DEFINITION_CACHE_INVALIDATED, json.dumps({"k": "realm", "r": realm_url}, ensure_ascii=False)
    )


def all_definitions_cleared() -> Notification:
    """The notification that all definitions were dropped."""
    return Notification(DEFINITION_CACHE_INVALIDATED, json.dumps({"k": "global"}))


def index_swapped(realm_url: str) -> Notification:
    """The notification that a realm's index was swapped."""
    return Notification(REALM_INDEX_SWAPPED, realm_url)


def heartbeat(beat: Heartbeat) -> Notification:
    """A ping through the channel itself."""
    return Notification(REALM_HEARTBEAT, f"{beat.replica}:{beat.sequence}:{beat.sent_at}")


def parse_heartbeat(payload: str | None) -> Heartbeat | None:
    """Splits a payload from the right: the replica's name may contain colons."""
    parts = (payload or "").rsplit(":", 2)
    if len(parts) != 3 or not parts[0]:
        return None
    try:
        return Heartbeat(parts[0], int(parts[1]), int(parts[2]))
    except ValueError:
        return None


@dataclass(frozen=True)
class DefinitionsInvalidated:
    """`kind` is `module`, `realm` or `global`; `keys` are the URLs of the modules or the realm."""

    kind: str
    keys: tuple[str, ...]


def parse_definitions_invalidated(payload: str | None) -> DefinitionsInvalidated | None:
    """Reads `{"k":"module","r":url,"m":[urls]}`, `{"k":"realm","r":url}` and `{"k":"global"}`."""
    try:
        message = json.loads(payload or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    kind, realm, modules = message.get("k"), message.get("r"), message.get("m")
    if kind == "global":
        return DefinitionsInvalidated("global", ())
    if not isinstance(realm, str) or not realm:
        return None
    if kind == "realm":
        return DefinitionsInvalidated("realm", (realm,))
    if kind != "module" or not isinstance(modules, list) or not modules:
        return None
    named = all(isinstance(module, str) and module for module in modules)
    return DefinitionsInvalidated("module", tuple(modules)) if named else None


def realm_changed(realm_url: str) -> Notification:
    """The notification that something about a realm other than its files has changed."""
    return Notification(REALM_REGISTRY, f"upsert:{realm_url}")


def parse_registry_change(payload: str | None) -> str | None:
    """The realm URL of `upsert:<url>` or `delete:<url>`."""
    operation, _, url = (payload or "").partition(":")
    return url if operation in ("upsert", "delete") and url else None


# --- The board keys of payloads ----------------------------------------------------------------


def _file_change_keys(payload: str | None) -> list[str] | None:
    change = parse_file_change(payload)
    if change is None:
        return None
    if change.path == WILDCARD:
        return [realm_key(change.realm_url)]
    return [path_key(change.realm_url + change.path)]


def _definitions_keys(payload: str | None) -> list[str] | None:
    invalidated = parse_definitions_invalidated(payload)
    if invalidated is None:
        return None
    if invalidated.kind == "global":
        return [definitions_key("global")]
    return [definitions_key(invalidated.kind, key) for key in invalidated.keys]


def _registry_keys(payload: str | None) -> list[str] | None:
    url = parse_registry_change(payload)
    return [realm_key(url)] if url else None


def _index_keys(payload: str | None) -> list[str] | None:
    return [index_key(payload)] if payload else None


_KEYS: dict[str, Callable[[str | None], list[str] | None]] = {
    REALM_FILE_CHANGES: _file_change_keys,
    DEFINITION_CACHE_INVALIDATED: _definitions_keys,
    MODULE_CACHE_INVALIDATED: _definitions_keys,
    REALM_REGISTRY: _registry_keys,
    REALM_INDEX_SWAPPED: _index_keys,
}

#: The channels that carry invalidations; a listener listens to these and to the heartbeat.
INVALIDATION_CHANNELS = tuple(_KEYS)


def board_keys(channel: str, payload: str | None) -> list[str] | None:
    """The board keys that a notification moves; None if the payload is malformed."""
    keys = _KEYS.get(channel)
    return keys(payload) if keys else None


def _modules_payload(realm_url: str, module_urls: list[str]) -> str:
    return json.dumps({"k": "module", "r": realm_url, "m": module_urls}, ensure_ascii=False)


def _size(payload: str) -> int:
    return len(payload.encode())
