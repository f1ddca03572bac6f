"""Lists requests that the routes of files refuse, mostly because of the host, path or headers."""

from collections.abc import Iterator

from django.conf import settings

from tests.support import make
from tests.support.bad.requests import ADAS_PAGE, OWNER, SITE, Case, file, minted
from tests.support.web import API, ORIGIN, SOURCE

HOSTS = {
    "": 400,
    "localhost:4201/ada": 400,
    "a b": 400,
    "ada@localhost:4201": 400,
    "localhost:4201?": 400,
    "localhost:4201#": 400,
    "lo\tcal": 400,
    "[::1": 400,
    "löcal": 400,
    "[::1]:4201": 404,
    "evil.example": 404,
    "x" * 300: 400,
    "x" * 250: 404,
}

NOWHERE = (
    "none.md",
    "none",
    "ada",
    "%2e%2e/private/index.json",
    "%2e%2e%2fprivate%2findex.json",
    "../private/index.json",
    "index.json/",
    "%252e%252e/",
    "*",
    ":x",
    "a//b",
    "index.json%20",
    "INDEX.JSON",
    "a%0Ab",
    "post.tsx/..",
    "post.tsx%3F",
)


def paths() -> Iterator[Case]:
    """Yields requests that must be refused because of the path, host, method, headers or size, or
    because there is no such file."""
    odd = {
        "a star": ("*", "has a *"),
        "a star inside": ("a*b.md", "has a *"),
        "an escaped star": ("%2A", "has a *"),
        "a colon in front": (":x", "starts with :"),
        "a colon in front, deeper": ("a/:x", "starts with :"),
        "an escaped colon": ("a/%3Ax", "starts with :"),
        "an empty segment": ("a//b.md", "empty segment"),
        "two slashes": ("/b.md", "starts with /"),
        "a slash at the end": ("a/", "empty segment"),
        "a dot": ("./b.md", ". or .."),
        "dots": ("a/../b.md", ". or .."),
        "escaped dots": ("%2e%2e/b.md", ". or .."),
        "escaped slashes": ("..%2Fb.md", ". or .."),
        "a line break": ("a%0Ab", "control character"),
        "a tab": ("a%09b", "control character"),
        "DEL": ("a%7Fb", "control character"),
        "1,025 bytes": ("a" * 1025, "longer than 1024"),
        "1,025 bytes of 513 letters": ("%C3%A4" * 513, "longer than 1024"),
        "nothing": ("", "empty"),
    }
    for name, (path, says) in odd.items():
        yield file(f"at {name}", "POST", SITE + path, 400, says, body=b"x")
        yield file(f"at {name}", "DELETE", SITE + path, 400, says)
    for method in ("GET", "POST", "DELETE", "HEAD"):
        body = b"x" if method == "POST" else None
        yield file("at a NUL", method, f"{SITE}a%00b", 400, "NUL", body=body)
        yield file("at invalid UTF-8", method, f"{SITE}a%ff", 404, "UTF-8", body=body)
        yield file("at half an escape's bytes", method, f"{SITE}a%e2%82", 404, "UTF-8", body=body)
        yield file("at an encoded surrogate", method, f"{SITE}%ED%A0%80", 404, "UTF-8", body=body)
        yield file("at 5,000 bytes", method, SITE + "a" * 5000, 414, "4096", body=body)
        yield file("at 20,000 slashes", method, SITE + "a/" * 20_000, 414, "4096", body=body)
        yield file(
            "where no realm is", method, f"{ORIGIN}/nobody/site/a.md", 404, "/nobody/", body=body
        )
        yield file("above all realms", method, f"{ORIGIN}/", 404, f"{ORIGIN}/", body=body)
        elsewhere = "http://x.localhost:4201/"
        yield file("of a host without realms", method, elsewhere, 404, elsewhere, body=body)
        for host, status in HOSTS.items():
            says = "Host" if status == 400 else "not found"
            yield file(f"of the host {host[:20]!r}", method, f"{SITE}index.json", status, says,
                       body=body, Host=host, edge=True)  # fmt: skip
        yield file("of half a path as host", method, f"{ORIGIN}/site/index.json", 400, "Host",
                   body=body, Host="localhost:4201/ada", edge=True)  # fmt: skip
        yield file("of no host", method, f"{SITE}index.json", 400, "Host", body=body, Host=None,
                   edge=True)  # fmt: skip
    for path in NOWHERE:
        if path != "ada":
            yield file(path, "GET", SITE + path, 404, "not found")
        yield file(f"{path} as a module", "GET", SITE + path, 404, "not found", accept="*/*")
    yield file("none.md", "DELETE", f"{SITE}none.md", 404, "none.md")
    yield file("a folder", "DELETE", f"{SITE}a", 404, "/a")
    for generation in ("soon", "-1", "", "1.5", "+1", "1e3", "9" * 19, "٣", "0x2", "2, 3"):
        sent = generation.encode().decode("latin-1")
        yield file(f"at generation {generation[:5]!r}", "GET", f"{SITE}index.json", 400,
                   "X-Realm-Min-Generation", X_Realm_Min_Generation=sent)  # fmt: skip
    for generation in ("3", "9" * 18):
        yield file(f"at generation {generation}", "GET", f"{SITE}index.json", 409, "generation 2",
                   generation, X_Realm_Min_Generation=generation)  # fmt: skip
    for method in ("PUT", "PATCH", "TRACE", "PROPFIND", "BREW"):
        yield file("", method, f"{SITE}index.json", 405, method, "expected GET", body=b"x")
    yield file(
        "as nothing known", "POST", f"{SITE}x.md", 405, "POST", SOURCE, accept="*/*", body=b"x"
    )
    yield file("as a form", "POST", f"{SITE}x.md", 405, "POST", accept="text/html", body=b"a=b",
               Content_Type="application/x-www-form-urlencoded")  # fmt: skip
    yield file("with 1,001 parameters", "GET", f"{SITE}index.json?{'a&' * 1001}", 400, "exceeded")
    yield file("into a page", "POST", f"{ADAS_PAGE}x.md", 405, "published realm", body=b"x",
               token=minted("ada", ADAS_PAGE, OWNER))  # fmt: skip
    yield file("from a page", "DELETE", f"{ADAS_PAGE}index.json", 405, "published realm",
               token=minted("ada", ADAS_PAGE, OWNER))  # fmt: skip
    yield file(
        "the readiness of nothing", "GET", f"{SITE}no/_readiness-check", 404, "/no/", accept=API
    )

    card = make.card("./post", "Post", body="x" * settings.CARD_SIZE_LIMIT_BYTES)
    yield file("a card that is too large", "POST", f"{SITE}x.json", 413, "exceeds maximum",
               str(settings.CARD_SIZE_LIMIT_BYTES), body=card)  # fmt: skip
    yield file("that says it is too large", "POST", f"{SITE}x.md", 413, "exceeds maximum",
               Content_Length="5242881")  # fmt: skip
    yield file("that says it is endless", "POST", f"{SITE}x.md", 413, "exceeds maximum",
               Content_Length="9" * 17)  # fmt: skip
    for length in ("many", "-1", "1.5", "0x10", "+3"):
        yield file(f"of length {length!r}", "POST", f"{SITE}x.md", 400, "Content-Length", edge=True,
                   Content_Length=length)  # fmt: skip
