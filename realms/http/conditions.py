"""Conditions on a request (RFC 9110, section 13): what a client knows of what it asks for."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from django.http import HttpRequest
from django.utils.http import parse_etags, parse_http_date, parse_http_date_safe

from realms.errors import Malformed, PreconditionFailed

#: The headers, in the order of the fields of `Conditions`; and as WSGI names them.
HEADERS = (
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "Range",
    "If-Range",
)
WSGI_HEADERS = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What of a request's headers decides whether it is carried out, and how much is sent."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    range: str | None = None
    if_range: str | None = None

    @classmethod
    def of(cls, request: HttpRequest) -> "Conditions":
        """The conditions of a request."""
        return cls(*map(request.META.get, WSGI_HEADERS))

    def of_read(self, etag: str | None, modified: str | None) -> Literal[200, 304, 412]:
        """What is answered to a read of content with this ETag and Last-Modified. A date that is
        none is ignored, as the standard says."""
        etags = [] if etag is None else [etag]
        if self.if_match is not None:
            if not _matches(self.if_match, etags, weakly=False):
                return 412
        elif _compared(modified, self.if_unmodified_since) == "newer":
            return 412
        if self.if_none_match is not None:
            return 304 if _matches(self.if_none_match, etags, weakly=True) else 200
        return 304 if _compared(modified, self.if_modified_since) == "not newer" else 200

    def check_write(self, url: str, etags: Collection[str], modified_at: datetime | None) -> None:
        """Lets a write go on if the conditions hold for what stands at `url`, whose ETags these
        are: none where nothing stands. The caller holds the lock that keeps it so.

        Raises PreconditionFailed, and Malformed for a date that is none: what a client wants to be
        sure of is not passed over.
        """
        if self.if_match is not None:
            if not _matches(self.if_match, etags, weakly=False):
                raise self.unmet(url)
        elif self.if_unmodified_since is not None:
            since = _date(self.if_unmodified_since)
            # What is gone has changed. A date has no fractions of a second.
            if modified_at is None or int(modified_at.timestamp()) > since:
                raise self.unmet(url)
        if self.if_none_match is not None and _matches(self.if_none_match, etags, weakly=True):
            raise _failed(url, "If-None-Match", self.if_none_match)

    def unmet(self, url: str) -> PreconditionFailed:
        """What is said where the content at `url` is not the one that the client knows."""
        if self.if_match is not None:
            return _failed(url, "If-Match", self.if_match)
        return _failed(url, "If-Unmodified-Since", self.if_unmodified_since or "")


def _failed(url: str, header: str, value: str) -> PreconditionFailed:
    return PreconditionFailed(url=url, header=header, value=value[:200])


def _matches(header: str, etags: Collection[str], *, weakly: bool) -> bool:
    known = parse_etags(header)
    if "*" in known:
        return bool(etags)
    if weakly:
        known = [each.removeprefix("W/") for each in known]
        return any(each.removeprefix("W/") in known for each in etags)
    return any(each in known for each in etags if not each.startswith("W/"))


def _compared(modified: str | None, since: str | None) -> Literal["newer", "not newer"] | None:
    """A Last-Modified beside a date of a request; None where there is nothing to compare."""
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
