"""Defines the channels on which Postgres sends notifications, their payloads, and the board keys
of each payload.

A replica's board is a page of shared memory with numbered slots (`board.py`). A board key is a text
that names something that can change, such as `path|<URL>` for a file. A hash maps each board key to
a slot. When a listener receives a payload, it moves the slots of the payload's board keys: it
overwrites these slots with new random numbers. Cached values that depend on these slots become
stale.

The emitters and listeners of all machines use this module, so they agree on the form of payloads.
Database triggers (`realms/triggers.py`) also build payloads, with the channel names and the limits
of this module. Parsers accept any text, and return None for an invalid payload.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

REALM_FILE_CHANGES = "realm_file_changes"
DEFINITION_CACHE_INVALIDATED = "definition_cache_invalidated"
#: The old name of DEFINITION_CACHE_INVALIDATED. Listeners listen to both channels. Emitters send to
#: the old channel only if the setting REALM_LEGACY_CHANNELS is on.
MODULE_CACHE_INVALIDATED = "module_cache_invalidated"
REALM_REGISTRY = "realm_registry"
REALM_INDEX_SWAPPED = "realm_index_swapped"
REALM_HEARTBEAT = "realm_heartbeat"
#: A payload of this channel is the ID of a step in a trace (`tracing/spans.py`). A notification on
#: this channel marks nothing as stale. Listeners listen to this channel only if tracing is on.
REALM_TRACES = "realm_traces"

#: In a payload, this path means all paths of a realm.
WILDCARD = "*"

#: The largest payload. Unit: bytes of UTF-8. Postgres rejects payloads of 8,000 bytes or more.
PAYLOAD_BUDGET = 7_000

#: If one SQL statement changes more files than this, the database triggers don't announce each
#: file. Instead, they announce for each realm of these files that all its files have changed.
MAX_PATHS_PER_STATEMENT = 32


# --- Board keys --------------------------------------------------------------------------------


def realm_key(realm_url: str) -> str:
    """Returns the board key of a realm. The key's slot moves in these cases:

    - The realm is created or deleted, or its permissions change.
    - The URL at which the realm is published changes.
    - All files of the realm count as changed, for example after a publish or a write of many files.
    - A column of the realm's row changes, except `generation`, `bumped_at`, `bumped_by`,
      `history_from`, `file_count` and `byte_count`.
    """
    return f"realm|{realm_url}"


def path_key(url: str) -> str:
    """Returns the board key of a file, given the file's absolute URL. The key's slot moves when the
    file is written or deleted. If one SQL statement changes more than MAX_PATHS_PER_STATEMENT
    files, the slot of the files' realm moves instead."""
    return f"path|{url}"


def index_key(realm_url: str) -> str:
    """Returns the board key of a realm's index, which contains the realm's rendered pages. The
    key's slot moves when a new index replaces the index, and when the index is deleted."""
    return f"index|{realm_url}"


def definitions_key(scope: str, key: str = "") -> str:
    """Returns a board key of definitions, which describe what modules export. The board key's slot
    moves when a notification says that these definitions were dropped:

    - Scope `module`: the definitions of the module with the URL `key`.
    - Scope `realm`: all definitions that were built from modules of the realm with the URL `key`.
    - Scope `global`: all definitions. `key` is empty.
    """
    return f"definitions|{scope}|{key}"


#: The surrogate key of the answers of all realms. A surrogate key is a label in the headers of an
#: answer. A shared cache, such as a CDN, can purge all answers that have a given label.
EVERY_REALM = "realms"


def surrogate_key(realm_url: str) -> str:
    """Returns the surrogate key of a realm's answers. The key is a hash of the realm's URL, because
    the configuration language of a shared cache may interpret characters of a URL."""
    name = realm_url.encode(errors="surrogatepass")
    return f"realm-{hashlib.blake2b(name, digest_size=8).hexdigest()}"


# --- Payloads ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Notification:
    """One notification of Postgres, as a channel and a payload."""

    channel: str
    payload: str


@dataclass(frozen=True)
class FileChange:
    """A change of the file `path` of a realm. The path `*` means all files."""

    realm_url: str
    path: str


@dataclass(frozen=True)
class Heartbeat:
    """A ping, which a listener sends to itself. `replica` is the name of the listener's replica.
    `sequence` is a random number that identifies the ping. `sent_at` is the time at which the
    listener sent the ping (`board.now_ns`)."""

    replica: str
    sequence: int
    sent_at: int


def file_change(realm_url: str, path: str) -> Notification:
    """Returns the notification that one file has changed. If the file's path is too long for a
    payload, the notification says that all files of the realm have changed."""
    payload = f"{realm_url}:{path}"
    if len(payload.encode()) > PAYLOAD_BUDGET:
        payload = f"{realm_url}:{WILDCARD}"
    return Notification(REALM_FILE_CHANGES, payload)


def all_files_changed(realm_url: str) -> Notification:
    """Returns the notification that all files of a realm have changed. Replicas that receive it
    treat all their cached answers of the realm as stale."""
    return Notification(REALM_FILE_CHANGES, f"{realm_url}:{WILDCARD}")


def parse_file_change(payload: str | None) -> FileChange | None:
    """Parses a payload of REALM_FILE_CHANGES, `<realm's URL>:<path>`. A realm's URL ends with `/`,
    so the first `/:` separates the URL from the path. A colon that doesn't follow a `/` may belong
    to the URL's scheme or port."""
    realm_url, separator, path = (payload or "").partition("/:")
    if not separator or not realm_url or not path:
        return None
    return FileChange(f"{realm_url}/", path)


def modules_invalidated(realm_url: str, module_urls: Iterable[str]) -> list[Notification]:
    """Returns notifications that the definitions of modules were dropped. Each notification
    contains as many modules' URLs as fit into a payload. If one URL alone doesn't fit, returns only
    the notification that every definition of the realm was dropped."""
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
    """Returns the notification that every definition of a realm was dropped."""
    return Notification(
        DEFINITION_CACHE_INVALIDATED, json.dumps({"k": "realm", "r": realm_url}, ensure_ascii=False)
    )


def all_definitions_cleared() -> Notification:
    """Returns the notification that all definitions were dropped."""
    return Notification(DEFINITION_CACHE_INVALIDATED, json.dumps({"k": "global"}))


def index_swapped(realm_url: str) -> Notification:
    """Returns the notification that a realm's index was replaced or deleted."""
    return Notification(REALM_INDEX_SWAPPED, realm_url)


def heartbeat(beat: Heartbeat) -> Notification:
    """Returns the notification that carries a listener's ping."""
    return Notification(REALM_HEARTBEAT, f"{beat.replica}:{beat.sequence}:{beat.sent_at}")


def parse_heartbeat(payload: str | None) -> Heartbeat | None:
    """Parses a ping's payload, `<replica>:<sequence>:<sent_at>`. Splits the payload from the right,
    because the replica's name may contain colons."""
    parts = (payload or "").rsplit(":", 2)
    if len(parts) != 3 or not parts[0]:
        return None
    try:
        return Heartbeat(parts[0], int(parts[1]), int(parts[2]))
    except ValueError:
        return None


@dataclass(frozen=True)
class DefinitionsInvalidated:
    """The definitions that a notification invalidates. `kind` is `module`, `realm` or `global`.
    `keys` has the URLs of the modules or the URL of the realm, and is empty for `global`."""

    kind: str
    keys: tuple[str, ...]


def parse_definitions_invalidated(payload: str | None) -> DefinitionsInvalidated | None:
    """Parses `{"k":"module","r":url,"m":[urls]}`, `{"k":"realm","r":url}` and `{"k":"global"}`."""
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
    """Returns the notification that a realm has changed, but not its files. For example, the URL at
    which the realm is published has changed."""
    return Notification(REALM_REGISTRY, f"upsert:{realm_url}")


def parse_registry_change(payload: str | None) -> str | None:
    """Parses `upsert:<url>` or `delete:<url>`, and returns the realm's URL."""
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

#: The channels of the notifications that move slots. A listener also listens to REALM_HEARTBEAT,
#: and to REALM_TRACES if tracing is on.
INVALIDATION_CHANNELS = tuple(_KEYS)


def board_keys(channel: str, payload: str | None) -> list[str] | None:
    """Returns the board keys of a notification. Returns None if the payload is malformed, or if
    notifications of the channel move no slots."""
    keys = _KEYS.get(channel)
    return keys(payload) if keys else None


def _modules_payload(realm_url: str, module_urls: list[str]) -> str:
    return json.dumps({"k": "module", "r": realm_url, "m": module_urls}, ensure_ascii=False)


def _size(payload: str) -> int:
    return len(payload.encode())
