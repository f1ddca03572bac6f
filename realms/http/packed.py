"""Keeps large texts compressed in memory. `Packed` compresses a text piece by piece while the text
is made. It decompresses the text piece by piece while a client reads the text."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator

#: zlib's `wbits` value for gzip.
_GZIP = 31
#: How much compressed data zlib gets at a time. Each call of zlib returns one piece of text and a
#: copy of the compressed data that the call has not used. Small amounts keep these copies short.
#: Unit: bytes.
_INPUT_BYTES = 4096


class Packed:
    """An immutable text that is stored compressed by gzip. `data` has the compressed bytes, and
    `len()` is their number. `size` and `sha256` are the length in bytes and the hash of the
    uncompressed text."""

    __slots__ = ("data", "sha256", "size")

    def __init__(self, parts: Iterable[str]) -> None:
        packer = zlib.compressobj(1, wbits=_GZIP)
        digest = hashlib.sha256()
        pieces: list[bytes] = []
        self.size = 0
        for part in parts:
            raw = part.encode()
            self.size += len(raw)
            digest.update(raw)
            pieces.append(packer.compress(raw))
        pieces.append(packer.flush())
        self.data = b"".join(pieces)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.data)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yields the uncompressed text in pieces of at most `size` bytes."""
        unpacker = zlib.decompressobj(wbits=_GZIP)
        for start in range(0, len(self.data), _INPUT_BYTES):
            left = self.data[start : start + _INPUT_BYTES]
            while left:
                yield unpacker.decompress(left, size)
                left = unpacker.unconsumed_tail
        yield unpacker.flush()
