"""Evaluates the headers of conditional requests (RFC 9110, section 13)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.utils.http import parse_etags, parse_http_date, parse_http_date_safe

from realms.errors import Malformed, PreconditionFailed
from realms.http.compression import uncoded_etag

#: The headers, in the order of the fields of `Conditions`.
HEADERS = (
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "Range",
    "If-Range",
)
#: The maximum length of a header that the event loop compares. A header of this length has room for
#: a few ETags. Unit: characters.
MANY = 1024
WSGI_HEADERS = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditional headers of a request, which decide whether the server performs the request,
    and which range of the content the server sends."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    range: str | None = None
    if_range: str | None = None

    @staticmethod
    def of(environ: Mapping[str, Any]) -> "Conditions":
        """Returns the conditions of a request. `environ` has the request's headers under their WSGI
        names."""
        found = Conditions(*map(environ.get, WSGI_HEADERS))
        return NO_CONDITIONS if found == NO_CONDITIONS else found

    @property
    def are_long(self) -> bool:
        """Whether the headers are too long to be compared in the event loop."""
        values = (self.if_match, self.if_none_match, self.range, self.if_range)
        return any(len(each) > MANY for each in values if each is not None)

    def of_read(self, etag: str | None, modified: str | None) -> Literal[200, 304, 412]:
        """Returns the status of a read request for content with this ETag and Last-Modified.
        Ignores invalid dates in the request, as the standard requires."""
        etags = [] if etag is None else [etag]
        if self.if_match is not None:
            if not _matches(self.if_match, etags, weakly=False):
                return 412
        elif _compared(modified, self.if_unmodified_since) == "newer":
            return 412
        if self.if_none_match is not None:
            # A copy in another content coding has other bytes, so its ETag must not match.
            return 304 if _matches(self.if_none_match, etags, weakly=True, coded=True) else 200
        return 304 if _compared(modified, self.if_modified_since) == "not newer" else 200

    def check_write(self, url: str, etags: Collection[str], modified_at: datetime | None) -> None:
        """Checks the conditions of a write to `url`. `etags` are the ETags of the current content;
        they are empty if there is no content. The caller holds the realm's lock.

        Raises PreconditionFailed if a condition fails. Raises Malformed for an invalid date,
        because a write must not skip a check that the client has requested.
        """
        if self.if_match is not None:
            if not _matches(self.if_match, etags, weakly=False):
                raise self.unmet(url)
        elif self.if_unmodified_since is not None:
            since = _date(self.if_unmodified_since)
            # A deletion counts as a change. HTTP dates have no fractions of a second.
            if modified_at is None or int(modified_at.timestamp()) > since:
                raise self.unmet(url)
        if self.if_none_match is not None and _matches(self.if_none_match, etags, weakly=True):
            raise _failed(url, "If-None-Match", self.if_none_match)

    def unmet(self, url: str) -> PreconditionFailed:
        """Returns the error for a failed If-Match at `url`, or for a failed If-Unmodified-Since if
        there is no If-Match."""
        if self.if_match is not None:
            return _failed(url, "If-Match", self.if_match)
        return _failed(url, "If-Unmodified-Since", self.if_unmodified_since or "")


#: All requests without conditional headers share this object.
NO_CONDITIONS = Conditions()


def _failed(url: str, header: str, value: str) -> PreconditionFailed:
    return PreconditionFailed(url=url, header=header, value=value[:200])


def _matches(header: str, etags: Collection[str], *, weakly: bool, coded: bool = False) -> bool:
    """Returns whether a header lists one of the ETags. Unless `coded` is set, the ETags of the same
    content in different content codings match."""
    if header in etags and not header.startswith("W/"):
        # Most clients send a single ETag, which needs no parsing.
        return True
    known = parse_etags(header)
    if "*" in known:
        return bool(etags)
    if not coded:
        known, etags = list(map(uncoded_etag, known)), list(map(uncoded_etag, etags))
    if weakly:
        known = [each.removeprefix("W/") for each in known]
        return any(each.removeprefix("W/") in known for each in etags)
    return any(each in known for each in etags if not each.startswith("W/"))


def _compared(modified: str | None, since: str | None) -> Literal["newer", "not newer"] | None:
    """Returns whether content is newer than a date in the request. Returns None if a date is
    missing or the request's date is invalid."""
    if modified is None or since is None:
        return None
    if modified == since:
        return "not newer"
    seconds = parse_http_date_safe(since)
    if seconds is None:
        return None
    return "newer" if parse_http_date(modified) > seconds else "not newer"


def _date(header: str) -> int:
    seconds = parse_http_date_safe(header)
    if seconds is None:
        raise Malformed(what=f"If-Unmodified-Since is {header[:80]!r}; expected an HTTP date")
    return seconds
