"""Tests how a reference in a card or a module is resolved to a URL."""

from itertools import product
from urllib.parse import quote, urljoin, urlsplit

import pytest

from reindex.reading import references
from reindex.reading.documents import links_of

BASES = (
    "http://localhost:4201/ada/site/card",
    "http://localhost:4201/ada/site/deep/er/card.tsx",
    "http://localhost:4201/card",
    "http://h.example/a%20b/caf%C3%A9/card",
    "http://h.example/a b/card",
    f"http://h.example/{'long/' * 780}card",
)
FOLDERS = (
    "./",
    "../",
    "../../",
    "../../../../../",
    "./a/",
    "./a/../b/",
    "./%2e%2e/",
    "./ä/",
    ".//",
    "./a;b/",
    "./a?query/",
    "./a#part/",
)
NAMES = (
    *("card", "card.json", "a.b.c", "-x_y-0", "..", ".", "...", ".hidden", "", "a b", "a%20b", "é"),
    *("x?query", "x#part", "?query", "#part", "a;b", "a:b", "a@b", "a\\b", "a\tb", "x" * 300),
)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base[:40])
def test_a_relative_reference_is_joined_as_the_standard_library_does(base: str) -> None:
    for folder, name in product(FOLDERS, NAMES):
        joined = urlsplit(urljoin(base, folder + name))
        path = quote(joined.path, safe=f"{references.UNESCAPED}%")
        url = f"{joined.scheme}://{joined.netloc}{path}"
        expected = url if references.SERVABLE.fullmatch(url) else None
        document = {"data": {"relationships": {"one": {"links": {"self": folder + name}}}}}
        found = [] if expected is None else [references.card_at(expected)]
        assert links_of(base, document) == found, folder + name


@pytest.mark.parametrize(
    ("specifier", "plain"),
    [
        *((each, True) for each in ("preact", "@realm/base", "preact/jsx-runtime")),
        *(
            (each, True)
            for each in ("./a.ts", "../../b/../a%20b", "./caf\u00e9", "./a?v=1", "/ada/a")
        ),
        *((each, True) for each in ("http://ada.localhost:4201/a", "https://h.example/a/b.ts")),
        *((each, False) for each in ("./a b", "./a\\b", "./%2E%2e/a", "//h.example/a", "/a/../b")),
        *((each, False) for each in ("http://h.example/a/./b", "HTTP://h.example/a", "http://H/a")),
        *((each, False) for each in ("http://h.example:80/a", "https://h.example:443/a")),
        *((each, False) for each in ("data:text/javascript,1", "npm:left-pad", "http:a", "")),
    ],
)
def test_a_specifier_that_two_parsers_could_read_differently_is_not_plain(
    specifier: str, plain: bool
) -> None:
    assert references.is_plain(specifier) is plain


@pytest.mark.parametrize(
    ("path", "card"),
    [
        ("a.json", "a"), ("", "index"), ("sec/", "sec/index"), ("sec/index.json", "sec/index"),
        ("a%5Bb%5D", "a[b]"), ("a[b]", "a[b]"), ("%41%7c%5e", "A|^"), ("a%2Fb", "a%2Fb"),
        ("a%20b", "a%20b"), ("100%25", "100%25"), ("%c3%bc", "%C3%BC"), ("%zz", "%zz"),
        ("%ff", "%ff"), ("x%23y%3F", "x%23y%3F"), ("%2A%27%28", "*'("),
    ],
)  # fmt: skip
def test_all_spellings_of_a_link_lead_to_one_card_address(path: str, card: str) -> None:
    base = "http://ada.localhost:4201/"
    assert references.card_at(base + path) == base + card
