"""Tests for each notification channel how a payload is written and parsed, and which board keys the
payload moves. A replica's board is a file with a slot for each key. When a key moves, its slot gets
a new number, and the cached data that depends on the key becomes stale."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifications import channels
from notifications.board import slot_of
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    MODULE_CACHE_INVALIDATED,
    PAYLOAD_BUDGET,
    REALM_FILE_CHANGES,
    REALM_HEARTBEAT,
    REALM_INDEX_SWAPPED,
    REALM_REGISTRY,
    DefinitionsInvalidated,
    FileChange,
    Heartbeat,
    Notification,
    board_keys,
    parse_definitions_invalidated,
    parse_file_change,
    parse_heartbeat,
    parse_registry_change,
)

REALM = "http://localhost:4201/ada/site/"
#: Postgres refuses payloads of this many bytes or more.
POSTGRES_LIMIT = 8_000

# All texts that can be stored. A text with a NUL or half of a surrogate pair can't be stored.
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
_segments = st.text(string.ascii_letters + string.digits + "-._~", min_size=1, max_size=20)
_realm_urls = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{port}/" + "".join(f"{s}/" for s in path),
    st.sampled_from(["http", "https"]),
    _segments,
    st.sampled_from(["", ":4201", ":8443"]),
    st.lists(_segments, max_size=4),
)
#: Payloads that somebody might send by hand: a missing payload, any text, fragments of valid
#: payloads, and JSON objects with valid and invalid values.
_payloads = st.one_of(
    st.none(),
    st.text(),
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                [*'{}[]",:*/ \\', '"k"', '"module"', '"m"', '"r"', "\\ud800", "http", "/:", "9"]
            ),
            max_size=20,
        ),
    ),
    st.dictionaries(
        st.sampled_from([*"krm"]),
        st.sampled_from(
            ["module", "realm", "global", REALM, "\ud800", "", 1, None, [], [REALM], {}]
        ),
    ).map(json.dumps),
)


# --- realm_file_changes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "realm_url", "path"),
    [
        ("http://localhost:4201/luke/src/:cards/person.gts",
         "http://localhost:4201/luke/src/", "cards/person.gts"),
        ("https://cardstack.com/base/:card-api.gts", "https://cardstack.com/base/", "card-api.gts"),
        ("http://localhost:4201/:one.ts", "http://localhost:4201/", "one.ts"),
        (f"{REALM}:a/b/c/d/e/f.json", REALM, "a/b/c/d/e/f.json"),
        ("https://cardstack.com/base/:*", "https://cardstack.com/base/", "*"),
        (f"{REALM}:*", REALM, "*"),
        (f"{REALM}:10:30.json", REALM, "10:30.json"),
        (f"{REALM}:a/:b.json", REALM, "a/:b.json"),
    ],
)  # fmt: skip
def test_a_file_change_is_split_at_the_first_slash_colon(
    payload: str, realm_url: str, path: str
) -> None:
    """The path is the part of the payload after the first `/:`. It may contain further colons and
    slashes, or be `*`."""
    assert parse_file_change(payload) == FileChange(realm_url, path)


@pytest.mark.parametrize(
    "payload", [None, "", ":", "/:", "/:a.ts", "person.gts", f"{REALM}a.ts", f"{REALM}:"]
)
def test_a_malformed_file_change_is_ignored(payload: str | None) -> None:
    """A payload invalidates nothing if it lacks `/:`, the realm or the path."""
    assert parse_file_change(payload) is None
    assert board_keys(REALM_FILE_CHANGES, payload) is None


@given(realm_url=_realm_urls, path=_texts)
@settings(deadline=None)
def test_a_file_change_is_parsed_as_it_was_sent(realm_url: str, path: str) -> None:
    sent = channels.file_change(realm_url, path)
    assert sent.channel == REALM_FILE_CHANGES
    assert parse_file_change(sent.payload) == FileChange(realm_url, path)


def test_a_path_moves_its_own_key_and_the_wildcard_moves_the_realm() -> None:
    """A notification about a path changes only the board slot of this path. A wildcard changes only
    the board slot of the realm."""
    assert board_keys(*_pair(channels.file_change(REALM, "a/b.ts"))) == [f"path|{REALM}a/b.ts"]
    assert board_keys(*_pair(channels.all_files_changed(REALM))) == [f"realm|{REALM}"]


@pytest.mark.parametrize("letter", ["a", "ß", "€", "𝄞"])
def test_a_path_too_long_to_send_becomes_the_wildcard(letter: str) -> None:
    """Postgres refuses a payload that is too long, so the sender invalidates the whole realm."""
    room = (PAYLOAD_BUDGET - len(f"{REALM}:")) // len(letter.encode())
    fits = channels.file_change(REALM, letter * room)
    assert parse_file_change(fits.payload) == FileChange(REALM, letter * room)
    assert channels.file_change(REALM, letter * (room + 1)) == channels.all_files_changed(REALM)


# --- definition_cache_invalidated --------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "kind", "keys"),
    [
        ('{"k":"module","r":"http://r/","m":["http://r/a.ts"]}', "module", ("http://r/a.ts",)),
        ('{"k":"module","r":"http://r/","m":["http://r/a.ts","http://q/b.ts"]}',
         "module", ("http://r/a.ts", "http://q/b.ts")),
        ('{"k":"realm","r":"http://r/"}', "realm", ("http://r/",)),
        ('{"k":"global"}', "global", ()),
        (' {"r": "http://r/", "k": "realm", "more": 1} ', "realm", ("http://r/",)),
    ],
)  # fmt: skip
def test_an_invalidation_of_definitions_is_parsed(
    payload: str, kind: str, keys: tuple[str, ...]
) -> None:
    """A payload invalidates one module, several modules, a realm, or all definitions."""
    assert parse_definitions_invalidated(payload) == DefinitionsInvalidated(kind, keys)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "",
        "http://r/a.ts",
        "{",
        "null",
        '"global"',
        '["k"]',
        "{}",
        '{"k":"everything"}',
        '{"k":["global"]}',
        '{"k":"module","r":"","m":["http://r/a.ts"]}',
        '{"k":"module","m":["http://r/a.ts"]}',
        '{"k":"module","r":1,"m":["http://r/a.ts"]}',
        '{"k":"module","r":"http://r/"}',
        '{"k":"module","r":"http://r/","m":[]}',
        '{"k":"module","r":"http://r/","m":"http://r/a.ts"}',
        '{"k":"module","r":"http://r/","m":["http://r/a.ts",1]}',
        '{"k":"module","r":"http://r/","m":[""]}',
        '{"k":"realm"}',
        '{"k":"realm","r":""}',
        '{"k":"realm","r":null}',
        pytest.param("[" * 7_900, id="deeper than any parser goes"),
        pytest.param('{"k":' * 1_500, id="deeper than any parser goes, in objects"),
        pytest.param("9" * 7_900, id="a number longer than Python reads"),
    ],
)
def test_a_malformed_invalidation_of_definitions_is_ignored(payload: str | None) -> None:
    """An invalid payload is ignored as a whole."""
    assert parse_definitions_invalidated(payload) is None
    assert board_keys(DEFINITION_CACHE_INVALIDATED, payload) is None
    assert board_keys(MODULE_CACHE_INVALIDATED, payload) is None


@pytest.mark.parametrize("channel", [DEFINITION_CACHE_INVALIDATED, MODULE_CACHE_INVALIDATED])
def test_an_invalidation_of_definitions_moves_only_its_own_keys(channel: str) -> None:
    """A payload moves only the keys of the modules or of the realm that it names. A global payload
    moves only the global key."""
    modules = [f"{REALM}a.ts", f"{REALM}b.ts"]
    [named] = channels.modules_invalidated(REALM, modules)
    assert board_keys(channel, named.payload) == [f"definitions|module|{m}" for m in modules]
    realm = channels.realm_definitions_cleared(REALM).payload
    assert board_keys(channel, realm) == [f"definitions|realm|{REALM}"]
    everything = channels.all_definitions_cleared().payload
    assert board_keys(channel, everything) == ["definitions|global|"]


@given(realm_url=_realm_urls, paths=st.lists(_texts, min_size=1, max_size=8))
@settings(deadline=None)
def test_an_invalidation_of_modules_is_parsed_as_it_was_sent(
    realm_url: str, paths: list[str]
) -> None:
    urls = [realm_url + path for path in paths]
    [sent] = channels.modules_invalidated(realm_url, urls)
    assert sent.channel == DEFINITION_CACHE_INVALIDATED
    assert parse_definitions_invalidated(sent.payload) == DefinitionsInvalidated(
        "module", tuple(urls)
    )


@given(
    lengths=st.lists(st.integers(1, 2_000), max_size=40),
    letter=st.sampled_from(["a", '"', "\n", "ß", "€", "𝄞"]),
)
@settings(deadline=None)
def test_many_modules_are_split_over_notifications_and_none_is_lost(
    lengths: list[int], letter: str
) -> None:
    """If a module's URL doesn't fit into a notification besides the URLs before it, the next
    notification contains this URL."""
    urls = [f"{REALM}{n}{letter * (length // 4)}" for n, length in enumerate(lengths)]
    sent = channels.modules_invalidated(REALM, urls)
    assert all(len(n.payload.encode()) <= PAYLOAD_BUDGET < POSTGRES_LIMIT for n in sent)
    read = [parse_definitions_invalidated(n.payload) for n in sent]
    assert [url for each in read if each for url in each.keys] == urls


def test_modules_are_split_over_as_few_notifications_as_possible() -> None:
    urls = [f"{REALM}{n:04}.ts" for n in range(300)]
    sent = channels.modules_invalidated(REALM, urls)
    needed = sum(len(url) + 4 for url in urls) / PAYLOAD_BUDGET
    assert len(sent) == int(needed) + 1


@pytest.mark.parametrize("letter", ["a", "€"])
def test_a_module_too_long_to_send_invalidates_its_whole_realm(letter: str) -> None:
    urls = [f"{REALM}a.ts", REALM + letter * (PAYLOAD_BUDGET // len(letter.encode()))]
    assert channels.modules_invalidated(REALM, urls) == [channels.realm_definitions_cleared(REALM)]


def test_an_empty_list_of_modules_sends_no_notification() -> None:
    assert channels.modules_invalidated(REALM, []) == []


# --- realm_registry, realm_index_swapped, realm_heartbeat --------------------------------------


@pytest.mark.parametrize("operation", ["upsert", "delete"])
def test_a_registry_change_moves_the_key_of_its_realm(operation: str) -> None:
    assert parse_registry_change(f"{operation}:{REALM}") == REALM
    assert board_keys(REALM_REGISTRY, f"{operation}:{REALM}") == [f"realm|{REALM}"]


@pytest.mark.parametrize("payload", [None, "", "upsert", "upsert:", f"insert:{REALM}", REALM, ":"])
def test_a_malformed_registry_change_is_ignored(payload: str | None) -> None:
    assert parse_registry_change(payload) is None
    assert board_keys(REALM_REGISTRY, payload) is None


def test_a_swapped_index_moves_only_the_index_key_of_its_realm() -> None:
    assert board_keys(*_pair(channels.index_swapped(REALM))) == [f"index|{REALM}"]
    assert board_keys(REALM_INDEX_SWAPPED, "") is None
    assert board_keys(REALM_INDEX_SWAPPED, None) is None


@given(replica=_texts, sequence=st.integers(0, 2**62), sent_at=st.integers(0, 2**63))
@settings(deadline=None)
def test_a_heartbeat_is_parsed_as_it_was_sent(replica: str, sequence: int, sent_at: int) -> None:
    beat = Heartbeat(replica, sequence, sent_at)
    sent = channels.heartbeat(beat)
    assert sent.channel == REALM_HEARTBEAT
    assert parse_heartbeat(sent.payload) == beat


@pytest.mark.parametrize("payload", [None, "", "a", "a:1", ":1:2", "a:b:2", "a:1:b", "a:1:2.5"])
def test_a_malformed_heartbeat_is_ignored(payload: str | None) -> None:
    assert parse_heartbeat(payload) is None


# --- All channels ------------------------------------------------------------------------------


@given(payload=_payloads)
@settings(deadline=None)
def test_no_payload_makes_a_parser_or_the_board_raise(payload: str | None) -> None:
    """Every payload, even a missing one, is either accepted or ignored."""
    parse_heartbeat(payload)
    for channel in (*channels.INVALIDATION_CHANNELS, REALM_HEARTBEAT, "no channel of ours"):
        for key in board_keys(channel, payload) or []:
            slot_of(key)


@pytest.mark.parametrize(
    "payload", ['{"k":"realm","r":"\\ud800"}', '{"k":"module","r":"r","m":["\\udfff"]}']
)
def test_a_key_with_half_a_surrogate_pair_has_a_slot(payload: str) -> None:
    keys = board_keys(DEFINITION_CACHE_INVALIDATED, payload)
    assert keys is not None
    assert [slot_of(key) for key in keys] == [slot_of(key) for key in keys]


def test_only_channels_that_invalidate_have_board_keys() -> None:
    assert set(channels.INVALIDATION_CHANNELS) == {
        "realm_file_changes",
        "definition_cache_invalidated",
        "module_cache_invalidated",
        "realm_registry",
        "realm_index_swapped",
    }
    assert board_keys(REALM_HEARTBEAT, "a:1:2") is None
    assert board_keys("no channel of ours", REALM) is None


def _pair(notification: Notification) -> tuple[str, str]:
    return notification.channel, notification.payload
