"""What an Accept header asks for (RFC 9110, section 12.5.1)."""

from django.http.request import MediaType

from notifications.short_cached import short_cached

SOURCE = "application/vnd.card+source"
CARD = "application/vnd.card+json"
API = "application/vnd.api+json"
JSON = "application/json"
HTML = "text/html"
#: Of a longer Accept header the rest is not read. Unit: characters.
_MAX_ACCEPT = 500


@short_cached(maxsize=1024)
def accepted(accept: str) -> str:
    """What an Accept header wants most of what this protocol tells apart: one of its media types if
    it is named, `text/html` where a page is wanted before a module's JavaScript, else `*/*`.

    By the rules of RFC 9110, 12.5.1; of types that are wanted alike a named `application/vnd.` goes
    before a page, and a page before JSON.
    """
    ranges = _ranges(accept)
    named = dict.fromkeys(f"{each.main_type}/{each.sub_type}" for each in ranges)
    # In the order of preference among those that are wanted alike.
    offers = [*(each for each in named if each in (SOURCE, CARD, API)), HTML, JSON, "*/*"]
    wanted = {each: _quality(ranges, each) for each in offers if each in named}
    if "text/*" in named:
        wanted[HTML] = _quality(ranges, HTML)
    if wanted.get(HTML, 1) < _quality(ranges, "text/javascript"):
        del wanted[HTML]
    best = max(wanted, key=lambda each: wanted[each], default="*/*")
    return best if wanted.get(best) else "*/*"


@short_cached(maxsize=1024)
def takes_pages(accept: str) -> bool:
    """Whether HTML is among what an Accept header takes."""
    return _quality(_ranges(accept), HTML) > 0


def _ranges(accept: str) -> list[MediaType]:
    if len(accept) > _MAX_ACCEPT:
        accept = accept[:_MAX_ACCEPT].rpartition(",")[0]
    return [MediaType(each) for each in accept.split(",") if each.strip()] or [MediaType("*/*")]


def _quality(ranges: list[MediaType], media_type: str) -> float:
    """How much a type is wanted, from 0 to 1: the most specific range that it is in decides."""
    main, _, sub = media_type.partition("/")
    wanted = [
        (each.main_type == main, each.sub_type == sub, each.quality)
        for each in ranges
        # Some clients write `*` for `*/*`.
        if each.main_type in ("*", main) and (each.sub_type or "*") in ("*", sub)
    ]
    return max(wanted, default=(False, False, 0))[2]
