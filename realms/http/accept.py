"""Chooses a media type by the Accept header (RFC 9110, section 12.5.1)."""

from contextlib import suppress

from django.http.request import MediaType

from notifications.short_cached import short_cached
from reindex.reading.media_types import ANY, API, CARD, HTML, JAVASCRIPT, JSON, SOURCE

#: How much of the start of an Accept header is parsed. The rest is ignored. Unit: characters.
_MAX_ACCEPT = 500


@short_cached(maxsize=1024)
def accepted(accept: str) -> str:
    """Returns the media type that an Accept header prefers, among SOURCE, CARD, API, HTML and JSON.
    Returns `*/*` if the header names none of them, or prefers `*/*`.

    If the header prefers JavaScript to HTML, the result is never HTML. If the header gives several
    types the same quality, SOURCE, CARD and API come before HTML, and HTML comes before JSON. But
    HTML comes last if the header has `text/*` and doesn't name HTML.
    """
    ranges = _ranges(accept)
    named = dict.fromkeys(f"{each.main_type}/{each.sub_type}" for each in ranges)
    # If several types have the same quality, `max` returns the one that comes first in this list.
    offers = [*(each for each in named if each in (SOURCE, CARD, API)), HTML, JSON, ANY]
    wanted = {each: _quality(ranges, each) for each in offers if each in named}
    if "text/*" in named:
        wanted[HTML] = _quality(ranges, HTML)
    if wanted.get(HTML, 1) < _quality(ranges, JAVASCRIPT):
        del wanted[HTML]
    best = max(wanted, key=lambda each: wanted[each], default=ANY)
    return best if wanted.get(best) else ANY


@short_cached(maxsize=1024)
def takes_pages(accept: str) -> bool:
    """Returns whether an Accept header accepts HTML."""
    return _quality(_ranges(accept), HTML) > 0


def _ranges(accept: str) -> list[MediaType]:
    return elements(accept, _MAX_ACCEPT) or [MediaType(ANY)]


def elements(header: str, limit: int) -> list[MediaType]:
    """Parses a header that lists names with qualities, such as Accept. Omits invalid elements, and
    all elements that aren't entirely in the first `limit` characters."""
    if len(header) > limit:
        header = header[:limit].rpartition(",")[0]
    found: list[MediaType] = []
    for each in header.split(","):
        # MediaType raises LookupError if a parameter names an encoding that doesn't exist
        # (RFC 2231).
        with suppress(ValueError, LookupError):
            found += [MediaType(each)] if each.strip() else []
    return found


def _quality(ranges: list[MediaType], media_type: str) -> float:
    """Returns the quality of a media type, from 0 to 1. The most specific range in the header that
    matches the type determines the quality. If no range matches, the quality is 0."""
    main, _, sub = media_type.partition("/")
    matching = [
        (each.main_type == main, each.sub_type == sub, each.quality)
        for each in ranges
        # Some clients send `*` instead of `*/*`.
        if each.main_type in ("*", main) and (each.sub_type or "*") in ("*", sub)
    ]
    return max(matching, default=(False, False, 0))[2]
