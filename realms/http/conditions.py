"""Evaluates the headers of conditional requests (RFC 9110, section 13)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.utils.http import parse_etags, parse_http_date, parse_http_date_safe

from realms.errors import Malformed, PreconditionFailed
from realms.http.compression import uncoded_etag

#: The names of the conditional headers, in the order of the fields of `Conditions`.
HEADERS = (
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "Range",
    "If-Range",
)
#: The maximum length of a header that the web server's event loop compares (`are_long`). Requests
#: with longer headers go to Django, because a long evaluation in the event loop would delay all
#: other requests. A header of this length has room for a few ETags. Unit: characters.
MANY = 1024
WSGI_HEADERS = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditional headers of a request. They decide whether the server carries out the request,
    and which range of the content the client gets."""

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
        """Whether a header is too long to be compared in the event loop. Dates are not checked,
        because a long date is invalid and needs no comparison."""
        values = (self.if_match, self.if_none_match, self.range, self.if_range)
        return any(len(each) > MANY for each in values if each is not None)

    def of_read(self, etag: str | None, modified: str | None) -> Literal[200, 304, 412]:
        """Returns 412 if a condition of a read request fails, 304 if the client's copy is current,
        else 200. `etag` and `modified` are the content's ETag and Last-Modified. Ignores invalid
        dates in the request, as RFC 9110 requires."""
        etags = [] if etag is None else [etag]
        if self.if_match is not None:
            if not _matches(self.if_match, etags, weakly=False):
                return 412
        elif _compared(modified, self.if_unmodified_since) == "newer":
            return 412
        if self.if_none_match is not None:
            # If the client's copy is in another content coding than the answer, their bytes differ.
            # So the ETag of the copy must not match the answer's ETag.
            return 304 if _matches(self.if_none_match, etags, weakly=True, coded=True) else 200
        return 304 if _compared(modified, self.if_modified_since) == "not newer" else 200

    def check_write(self, url: str, etags: Collection[str], modified_at: datetime | None) -> None:
        """Checks the conditions of a write to `url`. `etags` are the ETags of the current file, and
        `modified_at` is the time of its last change. If no file exists, `etags` is empty and
        `modified_at` is None. The caller holds the realm's lock.

        Raises PreconditionFailed if a condition fails. Raises Malformed for an invalid date,
        because a write must not skip a check that the client has requested.
        """
        if self.if_match is not None:
            if not _matches(self.if_match, etags, weakly=False):
                raise self.unmet(url)
        elif self.if_unmodified_since is not None:
            since = _date(self.if_unmodified_since)
            # A missing file may have been deleted after that date, so the condition fails. HTTP
            # dates have no fractions of a second, so the fraction of `modified_at` is dropped.
            if modified_at is None or int(modified_at.timestamp()) > since:
                raise self.unmet(url)
        if self.if_none_match is not None and _matches(self.if_none_match, etags, weakly=True):
            raise _failed(url, "If-None-Match", self.if_none_match)

    def unmet(self, url: str) -> PreconditionFailed:
        """Returns the error for a failed If-Match. If the request has no If-Match, returns the
        error for a failed If-Unmodified-Since."""
        if self.if_match is not None:
            return _failed(url, "If-Match", self.if_match)
        return _failed(url, "If-Unmodified-Since", self.if_unmodified_since or "")


#: All requests without conditional headers share this object, so callers may compare with `is`.
NO_CONDITIONS = Conditions()


def _failed(url: str, header: str, value: str) -> PreconditionFailed:
    return PreconditionFailed(url=url, header=header, value=value[:200])


def _matches(header: str, etags: Collection[str], *, weakly: bool, coded: bool = False) -> bool:
    """Returns whether a header lists one of the ETags. A header `*` matches any ETag.

    A weak ETag (`W/"..."`) matches only if `weakly` is set. Unless `coded` is set, the ETags of the
    same content in different content codings match each other.
    """
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
    """Returns whether content is newer than a date in the request. `modified` is the content's
    Last-Modified, and `since` is the request's date. Returns None if one of them is missing or
    `since` is invalid."""
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
