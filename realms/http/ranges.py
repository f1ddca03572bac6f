"""Parses Range headers (RFC 9110, section 14). Only a single range of bytes is supported."""

import re

_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The requested range has no byte of the content."""


def wanted(header: str | None, size: int) -> range | None:
    """Returns the positions of the bytes that a Range header selects from content of `size` bytes.
    Returns None for the whole content. Raises Unsatisfiable if the range has no byte of the
    content.

    A header that is invalid or lists several ranges selects the whole content. RFC 9110 allows
    servers to ignore such headers.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size or start >= stop:
        raise Unsatisfiable
    return range(start, stop)
