"""Defines the compact form of cached answers.

Thousands of answers differ in only a few values, such as the file's digest, path and timestamps.
All other values are stored once, in a `Frame` that the answers share. Each answer packs its own
values into one byte string. `Answer.headers` unpacks this string, which takes some microseconds.
Most cache hits don't unpack the string, but send a finished reply, a complete response that the
answer keeps for later requests.
"""

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from realms.content.resolve import ResolvedFile
from realms.http.compression import Coding
from realms.http.headers import GENERATION, Headers
from realms.http.replies import OWN, Finished
from realms.serving.contents import Content
from reindex.reading.references import file_url

# The following sizes are in bytes. An object's overhead is the memory that the object uses besides
# its content.

#: The overhead of three objects: the answer, its body and its packed part.
_ANSWER_BYTES = 150
#: The memory that a finished reply uses, without the values of its headers.
_REPLY_BYTES = 900
#: The overhead of the dictionary of compressed bodies, and the overhead of each body.
_CODED_BYTES, _EACH_CODED_BYTES = 240, 40
#: The overhead of a frame, and the overhead of each header in the frame.
_FRAME_BYTES, _HEADER_BYTES = 600, 90

_RANGE = struct.Struct("<QQ")
_FILE = struct.Struct("<32sqqQH")
_LENGTH = struct.Struct("<I")
_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: A header in a frame. The three values are the header's name, a text, and a kind. If the kind is
#: None, the text is the header's value. For any other kind, `Answer._unpacked` computes the
#: header's value.
_Item: TypeAlias = tuple[str, str, str | None]
_Template: TypeAlias = tuple[_Item, ...]
_OF_GENERATION = {GENERATION, "surrogate-key", "cache-tag"}


class Frame(NamedTuple):
    """The values that many answers share."""

    status: int
    realm_url: str | None
    public: bool
    #: See `Content.for_all`.
    for_all: bool
    #: Whether the content may be sent compressed.
    compressible: bool
    #: Whether the content was made from a file.
    from_file: bool
    #: Whether `Content.generation` is set. If so, `Answer.high` is that generation.
    has_generation: bool
    #: The content's own headers.
    content: _Template
    #: All headers of the answer, including the content's own headers.
    headers: _Template
    #: The memory that the frame uses. Unit: bytes.
    size: int


# If two threads create equal frames at the same time, both frames stay in use. The second frame
# only costs memory, and `StampedCache` counts that memory.
_frame = lru_cache(maxsize=1024)(Frame)


class Answer:
    """The answer to reads of one URL: a status, headers, a body, and the URL of the realm. The
    answer is the same at all generations of the realm from `low` to `high`."""

    __slots__ = ("_own", "body", "coded", "frame", "replies")

    def __init__(
        self,
        content: Content,
        headers: Headers,
        realm_url: str | None,
        public: bool,
        low: int,
        high: int,
    ) -> None:
        """`headers` are all headers of the answer, including the content's own headers."""
        self.body = content.body
        #: The compressed bodies, by content coding. The first request that prefers a coding adds
        #: the body in this coding. A value is None if the coding doesn't make the body shorter.
        #: Threads replace this mapping and never change it in place.
        self.coded: Mapping[Coding, bytes | None] = content.coded
        #: The finished replies that were made from this answer. Threads replace this tuple and
        #: never change it in place.
        self.replies: tuple[Finished, ...] = ()
        file = content.made_from
        derived = _derived(file, realm_url, high)
        packed: list[bytes] = []
        made = tuple(_item(*each, derived, packed) for each in headers)
        item_of = dict(zip(headers, made, strict=True))
        own = tuple(item_of.get(each) or (*each, None) for each in content.headers)
        texts = sum(len(text) + _HEADER_BYTES for _, text, _ in {*own, *made})
        self.frame = _frame(
            content.status, realm_url, public, content.for_all, content.compressible,
            file is not None, content.generation is not None, own, made, _FRAME_BYTES + texts,
        )  # fmt: skip
        self._own = b"".join((_RANGE.pack(low, high), _packed_file(file), *packed))

    @property
    def status(self) -> int:
        return self.frame.status

    @property
    def realm_url(self) -> str | None:
        return self.frame.realm_url

    @property
    def public(self) -> bool:
        return self.frame.public

    @property
    def low(self) -> int:
        return int(_RANGE.unpack_from(self._own)[0])

    @property
    def high(self) -> int:
        return int(_RANGE.unpack_from(self._own)[1])

    @property
    def made_from(self) -> ResolvedFile | None:
        """The file that the content was made from, if any, without its bytes."""
        if not self.frame.from_file:
            return None
        digest, created, modified, size, length = _FILE.unpack_from(self._own, _RANGE.size)
        start = _RANGE.size + _FILE.size
        path = self._own[start : start + length].decode(errors="surrogatepass")
        times = (_START + created * _MICROSECOND, _START + modified * _MICROSECOND)
        return ResolvedFile(path, digest.hex(), size, *times, None)

    @property
    def headers(self) -> Headers:
        return self._unpacked()[1]

    @property
    def content(self) -> Content:
        frame = self.frame
        generation = self.high if frame.has_generation else None
        return Content(
            frame.status, self._unpacked()[0], self.body, self.made_from, generation,
            frame.for_all, self.coded,
        )  # fmt: skip

    @property
    def size(self) -> int:
        """The memory that the answer uses. Doesn't count the frame, which many answers share. Unit:
        bytes."""
        coded = self.coded
        size = len(self.body) + len(self._own) + _ANSWER_BYTES
        size += sum(_REPLY_BYTES + each.length for each in self.replies)
        if coded:
            size += _CODED_BYTES
            size += sum(len(each) + _EACH_CODED_BYTES for each in coded.values() if each)
        return size

    def _unpacked(self) -> tuple[Headers, Headers]:
        """Returns two tuples: the content's own headers, and all headers of the answer."""
        file, frame = self.made_from, self.frame
        derived = _derived(file, frame.realm_url, self.high)
        at = _RANGE.size
        if file is not None:
            at += _FILE.size + len(file.path.encode(errors="surrogatepass"))
        values: dict[_Item, str] = {}
        for item in frame.headers:
            _, text, kind = item
            if kind is None:
                values[item] = text
            elif kind == "digest":
                values[item], at = f'"{self._own[at : at + 32].hex()}{text}', at + 32
            elif kind == "text":
                end = at + 4 + _LENGTH.unpack_from(self._own, at)[0]
                values[item], at = self._own[at + 4 : end].decode(errors="surrogatepass"), end
            else:
                values[item] = _KINDS[kind](derived, text)
        content, headers = (
            tuple((item[0], values.get(item, item[1])) for item in items)
            for items in (frame.content, frame.headers)
        )
        return content, headers


class _Derived(NamedTuple):
    """The values from which some of an answer's headers can be computed."""

    file: ResolvedFile | None
    realm_url: str | None
    generation: str


def _derived(file: ResolvedFile | None, realm_url: str | None, high: int) -> _Derived:
    return _Derived(file, realm_url, str(high))


def _time(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True)


#: For each kind of `_Item`, the function that computes the header's value. The function gets the
#: answer's `_Derived` and the item's text. The kinds `digest` and `text` are missing, because
#: `Answer._unpacked` reads their values from the packed string.
_KINDS: dict[str, Callable[[Any, str], str]] = {
    "sha256": lambda it, text: f'"{it.file.sha256}{text}',
    "modified": lambda it, text: _time(it.file.modified_at),
    "created": lambda it, text: _time(it.file.created_at),
    "url": lambda it, text: file_url(it.realm_url or "", it.file.path),
    "generation": lambda it, text: text + it.generation,
}
_KIND_OF = {
    "etag": "sha256", "last-modified": "modified", "x-created": "created",
    "x-boxel-canonical-path": "url",
}  # fmt: skip


def _item(name: str, value: str, derived: _Derived, packed: list[bytes]) -> _Item:
    """Returns the `_Item` that a frame stores for a header. If the value differs in nearly every
    answer (OWN) and can't be computed from `derived`, appends the value to `packed`."""
    if name in _OF_GENERATION and value.endswith(derived.generation):
        return name, value.removesuffix(derived.generation), "generation"
    if name not in OWN:
        return name, value, None
    kind, text = _KIND_OF.get(name), value[65:] if name == "etag" else ""
    if derived.file is not None and kind is not None and _KINDS[kind](derived, text) == value:
        return name, text, kind
    digest = _digest(value[1:65]) if name == "etag" else None
    if digest is not None and value == f'"{digest.hex()}{text}':
        packed.append(digest)
        return name, text, "digest"
    encoded = value.encode(errors="surrogatepass")
    packed += _LENGTH.pack(len(encoded)), encoded
    return name, "", "text"


def _digest(text: str) -> bytes | None:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return None
    return digest if len(digest) == 32 else None


def _packed_file(file: ResolvedFile | None) -> bytes:
    if file is None:
        return b""
    path = file.path.encode(errors="surrogatepass")
    times = [(each - _START) // _MICROSECOND for each in (file.created_at, file.modified_at)]
    return _FILE.pack(bytes.fromhex(file.sha256), *times, file.size, len(path)) + path
