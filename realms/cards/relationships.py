"""Merges changes into a card's relationships.

A field with several links is written in one of two forms: a list (`"friends": [...]`), or one entry
for each link (`"friends.0"`, `"friends.1"`).
"""

import re
from collections.abc import Mapping
from typing import Any

from realms.errors import Malformed

_NUMBERED = re.compile(r"(.+)\.([0-9]{1,99})[0-9]*", re.DOTALL)
_MAX_NUMBER = 999_999


def merged(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the stored relationships after applying the fields and single links in `sent`.

    The key `"friends"` replaces the whole field, which may be stored as a list or as one entry for
    each link. With the value null, the key removes the field. The key `"friends.1"` replaces one
    link, or appends a link if 1 is the next number. With the value null, the key removes the link,
    and later links move up. All other links stay. The numbers in `sent` refer to the links before
    the change. Raises Malformed for a number that doesn't exist, and for a field that is sent both
    as a whole and as single links.
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
                what=f"data.relationships.{field}.{number}: {field} has no such link; the next is "
                f"{field}.{next_number}"
            )
        links[number] = changes[number]
    kept = [links[number] for number in sorted(links) if links[number] is not None]
    rest = {key: link for key, link in stored.items() if _parts(key)[0] != field}
    if as_list or not kept:
        # Store the empty list too, because an empty field differs from a field that was never set.
        return {**rest, field: kept}
    return {**rest, **{f"{field}.{number}": link for number, link in enumerate(kept)}}


def _links(stored: dict[str, Any], field: str) -> dict[int, Any]:
    """Returns the links of a field by their numbers."""
    entry = stored.get(field)
    if isinstance(entry, list):
        return dict(enumerate(entry))
    if isinstance(entry, dict) and (entry.get("links") or {}).get("self"):
        raise Malformed(what=f"data.relationships.{field} is one link, not a list of links")
    parts = [(_parts(key), link) for key, link in stored.items()]
    return {number: link for (name, number), link in parts if name == field and number >= 0}


def _parts(key: str) -> tuple[str, int]:
    """Returns the field and the link's number in a relationship's key. The number is -1 for the
    whole field."""
    match = _NUMBERED.fullmatch(key)
    return (match[1], int(match[2])) if match else (key, -1)
