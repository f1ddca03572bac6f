"""Decodes the content codings of request bodies (RFC 9110, section 8.4): gzip and deflate."""

import zlib

from realms.errors import Malformed, TooLarge, UnsupportedCoding

#: zlib's `wbits` values for gzip, zlib and raw deflate data.
_GZIP, _ZLIB, _RAW = 31, 15, -15
_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "identity": "identity"}
ACCEPTED = "gzip, deflate, identity"
#: The maximum number of codings of a body. Clients usually apply only one coding. The limit bounds
#: the work, because each coding requires another pass over the body.
_MAX_CODINGS = 2
#: A body is decoded in pieces of this size. Unit: bytes.
_PIECE_BYTES = 64 * 1024


def decoded(data: bytes, content_encoding: str, limit: int, name: str) -> bytes:
    """Decodes a body. Stops as soon as the result exceeds `limit` bytes, because a small body could
    decode to gigabytes. `name` is the name of the body in error messages.

    Raises UnsupportedCoding if `content_encoding` names an unknown coding or too many codings.
    Raises TooLarge if the decoded body exceeds `limit`. Raises Malformed if the body isn't valid
    data in the named coding.
    """
    codings = [each.strip().lower() for each in content_encoding.split(",") if each.strip()]
    if len(codings) > _MAX_CODINGS or not _NAMES.keys() >= set(codings):
        raise UnsupportedCoding(found=content_encoding[:80], expected=ACCEPTED)
    for coding in reversed([_NAMES[each] for each in codings]):
        if coding != "identity":
            data = _unpacked(data, coding, limit, name)
    return data


def _unpacked(data: bytes, coding: str, limit: int, name: str) -> bytes:
    framing = _GZIP if coding == "gzip" else _deflate_framing(data)
    unpacker = zlib.decompressobj(wbits=framing)
    pieces: list[bytes] = []
    left = limit
    start = 0
    try:
        while start < len(data):
            if unpacker.eof:
                if coding != "gzip":
                    raise Malformed(what=f"{name} has data after the end of its {coding} data")
                # A gzip body may consist of several members, each a gzip stream of its own. Here
                # the next member begins.
                unpacker = zlib.decompressobj(wbits=framing)
            piece = data[start : start + _PIECE_BYTES]
            start += len(piece)
            while piece and not unpacker.eof:
                pieces.append(unpacker.decompress(piece, left + 1))
                left -= len(pieces[-1])
                if left < 0:
                    raise TooLarge(path=name, size=f"more than {limit}", limit=limit)
                piece = unpacker.unconsumed_tail
            start -= len(unpacker.unused_data)
    except zlib.error as error:
        raise Malformed(
            what=f"{name} is not {coding} data, although its Content-Encoding says it is"
        ) from error
    if not unpacker.eof:
        raise Malformed(what=f"{name} ends in the middle of its {coding} data")
    return b"".join(pieces)


def _deflate_framing(data: bytes) -> int:
    """Returns zlib's `wbits` value for a body with the coding deflate. RFC 9110 requires a zlib
    stream, but some clients send raw deflate data. A zlib stream is recognized by its first two
    bytes."""
    head = int.from_bytes(data[:2])
    return _ZLIB if len(data) > 1 and data[0] & 15 == 8 and head % 31 == 0 else _RAW
