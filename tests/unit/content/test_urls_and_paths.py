"""Tests that all spellings of a realm's URL become one, which paths files may have, which path a
reference names, and which public origin a request counts for."""

from collections.abc import Iterator

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from notifications.texts import MAX_PATH_BYTES
from realms.addresses import (
    canonical_realm_url,
    check_path,
    file_path,
    public_origin,
    realm_candidates,
)
from realms.errors import InvalidPath, InvalidURL
from reindex.reading.references import file_url

REALM = "http://localhost:4201/ada/site/"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://ada.localhost:4201/", "http://ada.localhost:4201/"),
        ("http://ada.localhost:4201", "http://ada.localhost:4201/"),
        ("http://ada.localhost:4201/a/b", "http://ada.localhost:4201/a/b/"),
        ("HTTP://ADA.LocalHost:4201/Case/", "http://ada.localhost:4201/Case/"),
        ("https://ada.localhost:4201/", "http://ada.localhost:4201/"),
        ("http://ada.localhost:80/", "http://ada.localhost/"),
        ("https://ada.localhost:443/x", "http://ada.localhost/x/"),
        ("http://ada.localhost:443/", "http://ada.localhost:443/"),
        ("http://ada.localhost:4201/x/?a=b&c", "http://ada.localhost:4201/x/"),
        ("http://ada.localhost:4201/x#here", "http://ada.localhost:4201/x/"),
        ("  http://ada.localhost:4201/\n", "http://ada.localhost:4201/"),
        ("http://ada.localhost:4201/a.b_c~d-e/", "http://ada.localhost:4201/a.b_c~d-e/"),
    ],
)
def test_every_spelling_of_a_realm_url_becomes_the_same_url(given: str, kept: str) -> None:
    assert canonical_realm_url(given) == kept
    assert canonical_realm_url(kept) == kept


@pytest.mark.parametrize("given", [None, 3, b"http://ada.localhost/", ["http://ada.localhost/"]])
def test_a_realm_url_that_is_not_a_string_is_refused(given: object) -> None:
    with pytest.raises(InvalidURL, match="is not a string"):
        canonical_realm_url(given)


@given(st.text(max_size=60))
def test_any_text_becomes_a_canonical_realm_url_or_is_refused(text: str) -> None:
    for candidate in (text, f"http://ada.localhost:4201/{text}", f"http://{text}/"):
        try:
            url = canonical_realm_url(candidate)
        except InvalidURL:
            continue
        assert canonical_realm_url(url) == url
        assert url.startswith("http://")
        assert url.endswith("/")
        assert url.isascii()
        assert not set(url) & set(" %*?#@\\\x00\n")


def test_a_realm_url_of_the_greatest_length_is_still_found_by_its_files() -> None:
    url = canonical_realm_url("http://ada.localhost:4201/".ljust(MAX_PATH_BYTES - 1, "a"))
    assert len(url) == MAX_PATH_BYTES
    assert url in realm_candidates(f"{url}post.tsx")
    with pytest.raises(InvalidURL, match="longer than 1024 bytes"):
        canonical_realm_url(url[:-1] + "a")


@pytest.mark.parametrize(
    "path",
    ["a", "a/b.json", ".hidden", "_x/y", "a:b", "ä/ö.md", "日本.tsx", "a b", "a%20b", "~", "...",
     "a" * 1024, "'\"<>&", "a\\b", "\U0001f4a1.png"],
)  # fmt: skip
def test_a_file_may_have_an_unusual_name(path: str) -> None:
    assert check_path(path, REALM) == path
    assert file_path(file_url(REALM, path), REALM) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "empty"),
        ("/a", "starts with /"),
        ("a//b", "empty segment"),
        ("a/", "empty segment"),
        (".", ". or .."),
        ("a/./b", ". or .."),
        ("../a", ". or .."),
        ("a/..", ". or .."),
        ("*", "has a *"),
        ("a/b*c", "has a *"),
        (":a", "starts with :"),
        ("a/:b", "starts with :"),
        ("a\x00", "control character"),
        ("a\nb", "control character"),
        ("a\x7f", "control character"),
        ("a\ud800", "not valid UTF-8"),
        ("a" * 1025, "longer than 1024"),
        ("ä" * 513, "longer than 1024"),
    ],
)
def test_a_path_that_no_file_may_have_is_refused_with_the_reason(path: str, why: str) -> None:
    with pytest.raises(InvalidPath, match=why.replace("*", r"\*").replace(".", r"\.")):
        check_path(path, REALM)


@given(st.text(min_size=1, max_size=80))
def test_every_allowed_path_can_be_read_back_from_its_url(path: str) -> None:
    try:
        check_path(path, REALM)
    except InvalidPath:
        return
    url = file_url(REALM, path)
    assert url.isascii()
    assert file_path(url, REALM) == path


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("http://localhost:4201/ada/site/a.json", "a.json"),
        ("https://localhost:4201/ada/site/a%20b.json", "a b.json"),
        ("./a.json", "a.json"),
        ("a/b.json", "a/b.json"),
        ("/ada/site/a.json", "a.json"),
        ("/ada/other/a.json", None),
        ("http://localhost:4201/bob/site/a.json", None),
        ("http://evil.example/ada/site/a.json", None),
    ],
)
def test_a_reference_names_a_path_in_the_realm_or_none(href: str, path: str | None) -> None:
    assert file_path(href, REALM) == path


@pytest.mark.parametrize("href", ["../a.json", "%2e%2e/a.json", "/ada/site/../x", "a%00", "%ff"])
def test_a_reference_that_leaves_its_realm_is_refused(href: str) -> None:
    with pytest.raises(InvalidPath):
        file_path(href, REALM)


def test_realm_candidates_are_all_parent_urls_the_longest_first() -> None:
    assert realm_candidates("http://localhost:4201/ada/site/a/b.json") == [
        "http://localhost:4201/ada/site/a/",
        "http://localhost:4201/ada/site/",
        "http://localhost:4201/ada/",
        "http://localhost:4201/",
    ]
    assert realm_candidates("http://localhost:4201/") == ["http://localhost:4201/"]
    assert realm_candidates("http://localhost:4201") == []


def test_a_url_of_30_000_slashes_has_few_realm_candidates() -> None:
    candidates = realm_candidates("http://localhost:4201/" + "a/" * 30_000)
    assert sum(map(len, candidates)) < 1_000_000
    assert candidates[-1] == "http://localhost:4201/"


@pytest.fixture
def own_address() -> Iterator[None]:
    """Makes this process a replica at 10.0.0.7:8001 of the public origin https://realms.example."""
    with override_settings(
        REALM_PUBLIC_ORIGIN="https://realms.example", REALM_REPLICA_ADDRESS="http://10.0.0.7:8001"
    ):
        public_origin.cache_clear()
        yield
    public_origin.cache_clear()


@pytest.mark.usefixtures("own_address")
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("realms.example", "https://realms.example"),
        ("Realms.Example", "https://realms.example"),
        ("realms.example:443", "https://realms.example"),
        ("10.0.0.7:8001", "https://realms.example"),
        ("ada.example:8001", "https://ada.example"),
        ("ada.example:9000", "https://ada.example:9000"),
        ("ada.example", "https://ada.example"),
        # One dot at the end of a host name doesn't change the host.
        ("realms.example.", "https://realms.example"),
        ("realms.example.:443", "https://realms.example"),
        ("ADA.example.:8001", "https://ada.example"),
        ("ada.example..", "https://ada.example."),
    ],
)
def test_a_request_to_a_replicas_address_counts_as_the_public_origin(
    host: str, origin: str
) -> None:
    assert public_origin(host) == origin


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("[2001:DB8::7]:8001", "https://realms.example"),
        ("[2001:db8::7]:9000", "https://[2001:db8::7]:9000"),
        ("[2001:db8::7]", "https://[2001:db8::7]"),
        ("ada.example:8001", "https://ada.example"),
    ],
)
def test_a_replicas_own_address_may_be_an_ipv6_address(host: str, origin: str) -> None:
    with override_settings(
        REALM_PUBLIC_ORIGIN="https://realms.example",
        REALM_REPLICA_ADDRESS="http://[2001:db8::7]:8001",
    ):
        public_origin.cache_clear()
        assert public_origin(host) == origin
    public_origin.cache_clear()
