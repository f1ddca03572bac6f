"""Merges changes into a card's relationships. A relationship is a field that links to other cards.

A field with several links has one of two forms: a list (`"friends": [...]`), or one entry for each
link (`"friends.0"`, `"friends.1"`).
"""

import re
from collections.abc import Mapping
from typing import Any

from realms.errors import Malformed

_NUMBERED = re.compile(r"(.+)\.([0-9]{1,99})[0-9]*", re.DOTALL)
_MAX_NUMBER = 999_999


def merged(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the stored relationships after applying the fields and single links in `sent`.

    The key `"friends"` replaces the whole field, in whichever form the field is stored. With the
    value null, the key removes the field. The key `"friends.1"` replaces the link with the number
    1, or appends a link if the last link has the number 0. With the value null, the key removes the
    link, and the links after it move up. The numbers in `sent` refer to the links before the
    change.

    Raises Malformed if a key has neither the number of a link nor the number for a new link. Also
    raises Malformed for a field that is sent both as a whole and as single links.
    """
    whole = {key for key in sent if not _NUMBERED.fullmatch(key)}
    single: dict[str, dict[int, Any]] = {}
    for key in sent.keys() - whole:
        field, number = _parts(key)
        if f"{field}.{number}" != key or number > _MAX_NUMBER or field in whole:
            raise Malformed(what=f"data.relationships.{key}: expected {field}, or {field}.0, ...")
        if isinstance(sent[key], list):
            raise Malformed(what=f"data.relationships.{key}: expected one link, not a list")
        single.setdefault(field, {})[number] = sent[key]
    result = {key: link for key, link in stored.items() if _parts(key)[0] not in whole}
    result |= {key: sent[key] for key in sent if key in whole and sent[key] is not None}
    for field in sorted(single):
        result = _with_links(result, field, single[field])
    return result


def _with_links(stored: dict[str, Any], field: str, changes: dict[int, Any]) -> dict[str, Any]:
    as_list = isinstance(stored.get(field), list)
    links = _links(stored, field)
    for number in sorted(changes):
        next_number = max(links, default=-1) + 1
        if number not in links and (number != next_number or changes[number] is None):
            raise Malformed(
                what=f"data.relationships.{field}.{number}: {field} has no such link; a new link "
                f"would be {field}.{next_number}"
            )
        links[number] = changes[number]
    kept = [links[number] for number in sorted(links) if links[number] is not None]
    rest = {key: link for key, link in stored.items() if _parts(key)[0] != field}
    if as_list or not kept:
        # If no link is left, store an empty list, because an empty field differs from a field that
        # was never set.
        return {**rest, field: kept}
    return {**rest, **{f"{field}.{number}": link for number, link in enumerate(kept)}}


def _links(stored: dict[str, Any], field: str) -> dict[int, Any]:
    """Returns a field's links by their numbers. Raises Malformed if the field is stored as one link
    without a number."""
    entry = stored.get(field)
    if isinstance(entry, list):
        return dict(enumerate(entry))
    if isinstance(entry, dict) and (entry.get("links") or {}).get("self"):
        raise Malformed(what=f"data.relationships.{field} is one link, not a list of links")
    parts = [(_parts(key), link) for key, link in stored.items()]
    return {number: link for (name, number), link in parts if name == field and number >= 0}


def _parts(key: str) -> tuple[str, int]:
    """Splits a key such as `friends.1` into the field and the link's number. If the key has no
    number, returns the number -1."""
    match = _NUMBERED.fullmatch(key)
    return (match[1], int(match[2])) if match else (key, -1)
