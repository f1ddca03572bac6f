"""What a reference in a card or a module means: a URL, whichever way it is found."""

from itertools import product
from urllib.parse import quote, urljoin, urlsplit

import pytest

from reindex import reader
from reindex.reader import links_of

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
def test_a_relative_reference_means_what_the_standard_library_says(base: str) -> None:
    for folder, name in product(FOLDERS, NAMES):
        joined = urlsplit(urljoin(base, folder + name))
        path = quote(joined.path, safe=f"{reader._UNESCAPED}%")
        url = f"{joined.scheme}://{joined.netloc}{path}"
        expected = url if reader._SERVABLE.fullmatch(url) else None
        document = {"data": {"relationships": {"one": {"links": {"self": folder + name}}}}}
        found = [] if expected is None else [expected.removesuffix(".json")]
        assert links_of(base, document) == found, folder + name
