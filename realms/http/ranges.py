"""Parses byte ranges (RFC 9110, section 14). Only single ranges are supported."""

import re

_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The requested range begins after the content's end."""


def wanted(header: str | None, size: int) -> range | None:
    """Returns the positions of the bytes that a Range header selects from `size` bytes; None for
    the whole content.

    An invalid header also selects the whole content, and so does a header with several ranges,
    because the standard allows servers to ignore such headers. Raises Unsatisfiable if the range
    begins after the content's end.
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
