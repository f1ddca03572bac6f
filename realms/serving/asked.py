"""Parses the headers of a read request: the variant that the client wants (source, module or page),
the minimum generation of the realm, the conditions, and the content coding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from realms.errors import RealmError
from realms.http.accept import accepted, takes_pages
from realms.http.compression import Coding, preferred
from realms.http.conditions import Conditions
from realms.http.requests import MIN_GENERATION, min_generation, request_origin
from realms.serving import origins
from realms.serving.contents import Variant
from realms.serving.drafts import may_preview
from realms.serving.responses import VARIANTS
from reindex.reading.media_types import ANY


@dataclass(frozen=True, slots=True)
class Asked:
    """The parsed headers of a read request that a cache may answer."""

    #: The scheme, host and port of the requested realm's URL, derived from the Host header.
    origin: str
    variant: Variant
    #: Whether the client accepts a page if the URL has no file.
    takes_pages: bool
    #: The minimum generation that the client accepts; 0 if the client accepts any generation.
    at_least: int
    conditions: Conditions
    #: The Host header, and the content coding that the client prefers. The reply that is made from
    #: an answer depends on these two values and on `conditions`.
    form: tuple[str, Coding | None]


def asked(environ: Mapping[str, Any]) -> Asked | None:
    """Parses the headers of a read request. Returns None if only Django can handle the request.
    `environ` has the headers under their WSGI names."""
    host: str = environ.get("HTTP_HOST", "")
    # Only Django serves the admin, and only Django interprets X-HTTP-Method-Override.
    if origins.is_admin_host(host) or "HTTP_X_HTTP_METHOD_OVERRIDE" in environ:
        return None
    accept: str = environ.get("HTTP_ACCEPT", ANY)
    variant = VARIANTS.get(accepted(accept))
    # A request from a realm's owner may need the draft of a page, which only Django shows.
    if variant is None or (variant is Variant.HTML and may_preview(environ)):
        return None
    conditions = Conditions.of(environ)
    if conditions.are_long:
        return None
    try:
        return Asked(
            origin=request_origin(host),
            variant=variant,
            takes_pages=takes_pages(accept),
            at_least=min_generation(environ.get(MIN_GENERATION)),
            conditions=conditions,
            form=(host, preferred(environ.get("HTTP_ACCEPT_ENCODING", ""))),
        )
    except RealmError:
        return None
