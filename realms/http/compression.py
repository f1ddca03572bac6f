"""Compresses answers, and finds the content coding that a client prefers (RFC 9110, sections 8.4
and 12.5.3)."""

import re
import zlib
from collections.abc import Callable
from enum import StrEnum

import brotli
import zstandard

from notifications.short_cached import short_cached
from realms.http.accept import elements


class Coding(StrEnum):
    """A content coding, by its name in headers. If a client accepts several codings equally well,
    the server uses the one that this class lists first. Brotli is first, because it makes texts of
    usual size shorter than the other codings do."""

    BROTLI = "br"
    ZSTD = "zstd"
    GZIP = "gzip"


_CODED_ETAG = re.compile(rf':(?:{"|".join(Coding)})"$')
#: How many characters of an Accept-Encoding header are parsed. The rest of the header is ignored.
_MAX_HEADER = 256
#: zlib's `wbits` value for gzip.
_GZIP = 31
#: The minimum size of a text that is compressed. Compression of a shorter text saves too few bytes
#: to be worth its time and memory. Unit: bytes.
LEAST_BYTES = 256
#: Media types outside of `text/*` that are also worth compressing.
_TEXTS = {
    "application/json",
    "application/toml",
    "application/vnd.apple.mpegurl",
    "application/wasm",
    "application/x-ndjson",
    "application/x-subrip",
    "application/xml",
    "application/yaml",
    "image/bmp",
    "image/svg+xml",
    "image/vnd.microsoft.icon",
    "font/otf",
    "font/ttf",
    "model/obj",
    "model/stl",
}


@short_cached(maxsize=1024)
def preferred(accept_encoding: str) -> Coding | None:
    """Returns the coding that an Accept-Encoding header prefers. Returns None if the body should
    stay uncompressed."""
    qualities = _qualities(accept_encoding)
    best = max(Coding, key=lambda each: _quality(qualities, each))
    quality = _quality(qualities, best)
    return best if quality >= qualities.get("identity", 0.0) and quality > 0 else None


@short_cached(maxsize=1024)
def accepts(accept_encoding: str, coding: Coding) -> bool:
    """Returns whether an Accept-Encoding header accepts a coding."""
    return _quality(_qualities(accept_encoding), coding) > 0


def _qualities(accept_encoding: str) -> dict[str, float]:
    return {
        each.main_type.lower().removeprefix("x-"): each.quality
        for each in elements(accept_encoding, _MAX_HEADER)
        if each.main_type
    }


def _quality(qualities: dict[str, float], coding: Coding) -> float:
    return qualities.get(coding, qualities.get("*", 0.0))


def is_compressible(content_type: str, size: int) -> bool:
    """Returns whether content of this type and size should be compressed."""
    kind = content_type.partition(";")[0].strip()
    is_text = kind.startswith("text/") or kind.endswith(("+json", "+xml")) or kind in _TEXTS
    return is_text and size >= LEAST_BYTES


def compressed(data: bytes, coding: Coding) -> bytes:
    """Compresses data, which takes about a millisecond for 20 KB. Meanwhile other threads can run,
    because the compressors release Python's global lock (GIL)."""
    return _CODERS[coding](data)


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(6, wbits=_GZIP)
    return packer.compress(data) + packer.flush()


def _brotli(data: bytes) -> bytes:
    return bytes(brotli.compress(data, quality=5))  # type: ignore[no-untyped-call]


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=9).compress(data)


_CODERS: dict[Coding, Callable[[bytes], bytes]] = {
    Coding.BROTLI: _brotli,
    Coding.ZSTD: _zstd,
    Coding.GZIP: _gzip,
}


def coded_etag(etag: str, coding: Coding) -> str:
    """Returns the ETag of a compressed body. `etag` is the ETag of the uncompressed content. The
    two ETags differ, because each ETag identifies exact bytes."""
    return f'{etag[:-1]}:{coding}"'


def uncoded_etag(etag: str) -> str:
    """Returns the ETag of the uncompressed content. `etag` is the ETag of the content in any coding
    or without a coding."""
    return _CODED_ETAG.sub('"', etag)
