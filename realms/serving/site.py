"""Generates `robots.txt` and `sitemap.xml` for search engines.

If a realm has a file of its own with one of these names, the server serves this file instead.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from django.http import HttpRequest, HttpResponse

from realms import errors
from realms.access import auth
from realms.content.history import versions_at
from realms.http import headers
from realms.models import EVERYONE, Realm
from reindex.index.shown import page_paths
from reindex.reading.card_paths import GENERATED, file_of
from reindex.reading.references import file_url

ROBOTS, SITEMAP = "robots.txt", "sitemap.xml"
#: The maximum number of URLs in one sitemap file. The sitemap protocol sets this limit.
MAX_URLS = 50_000
_XMLNS = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def is_generated(url: str) -> bool:
    """Returns whether a URL ends with `/robots.txt` or `/sitemap.xml`."""
    return url.endswith(GENERATED)


def generated(request: HttpRequest, url: str) -> HttpResponse:
    """Generates the `robots.txt` or `sitemap.xml` at a URL. For `sitemap.xml`, raises the errors of
    `sitemap`."""
    base, _, name = url.rpartition("/")
    return robots(f"{base}/") if name == ROBOTS else sitemap(request, f"{base}/")


def robots(base: str) -> HttpResponse:
    """Returns the `robots.txt` of the folder at the URL `base`. If this folder is in a public
    published realm, the `robots.txt` allows everything. Otherwise the `robots.txt` allows only the
    public published realms below the folder. It names at most 1,000 of them."""
    around = Realm.objects.containing(base).first()
    public = (
        Realm.objects.published()
        .filter(permissions__audience=EVERYONE, permissions__read=True)
        .order_by("url")
    )
    published = list(public.filter(url__startswith=base).values_list("url", flat=True)[:1000])
    is_public = around is not None and public.filter(pk=around.pk).exists()
    lines = ["User-agent: *"]
    if is_public:
        lines.append("Allow: /")
    else:
        lines += [f"Allow: {urlsplit(url).path}" for url in published]
        lines.append("Disallow: /")
    lines += [f"Sitemap: {url}{SITEMAP}" for url in published]
    return HttpResponse(
        "\n".join(lines) + "\n",
        content_type="text/plain; charset=utf-8",
        headers={"Cache-Control": headers.REVALIDATED},
    )


def sitemap(request: HttpRequest, realm_url: str) -> HttpResponse:
    """Returns a sitemap with the URLs of a published realm's pages. If the realm has more than
    MAX_URLS pages, returns an index of numbered parts instead. The query `?part=2` selects the
    second part.

    Raises NotFound if no published realm has the URL `realm_url`, and Malformed for an unknown
    part. Raises the errors of `authorize` if the client may not read the realm.
    """
    realm = Realm.objects.published().filter(url=realm_url).first()
    if realm is None:
        raise errors.NotFound(url=realm_url + SITEMAP)
    auth.authorize(request, realm, "read")
    generation, paths = page_paths(realm.url)
    paths = [path for path in paths if path != "404"]
    parts = max(1, -(-len(paths) // MAX_URLS))
    wanted = request.GET.get("part")
    if wanted is None and parts > 1:
        return _xml(realm.url, generation, "sitemapindex", (
            f"<sitemap><loc>{escape(f'{realm.url}{SITEMAP}?part={part}')}</loc></sitemap>"
            for part in range(1, parts + 1)
        ))  # fmt: skip
    if wanted is not None and wanted not in map(str, range(1, parts + 1)):
        raise errors.Malformed(what=f"part is {wanted[:40]!r}; expected a number from 1 to {parts}")
    start = (int(wanted or 1) - 1) * MAX_URLS
    return _xml(
        realm.url,
        generation,
        "urlset",
        _entries(realm, generation, paths[start : start + MAX_URLS]),
    )


def _entries(realm: Realm, generation: int, paths: list[str]) -> Iterator[str]:
    files = versions_at(realm, generation).filter(path__endswith=".json")
    changed = dict(files.values_list("path", "modified_at"))
    for path in paths:
        folder = path.removesuffix("index") if path.rpartition("/")[2] == "index" else path
        when = changed.get(file_of(path))
        lastmod = f"<lastmod>{when.isoformat(timespec='seconds')}</lastmod>" if when else ""
        yield f"<url><loc>{escape(file_url(realm.url, folder))}</loc>{lastmod}</url>"


def _xml(realm_url: str, generation: int, root: str, entries: Iterator[str]) -> HttpResponse:
    body = "\n".join(
        ['<?xml version="1.0" encoding="UTF-8"?>', f"<{root} {_XMLNS}>", *entries, f"</{root}>", ""]
    )
    response = HttpResponse(body, content_type="application/xml; charset=utf-8")
    headers.add(response, headers.of_sitemap(realm_url, generation))
    return response
