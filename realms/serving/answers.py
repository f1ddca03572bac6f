"""Loads answers to read requests, and caches them.

There are three caches: for source files, for transpiled modules and assets, and for pages. The
board is a file of numbered slots (`notifications/board.py`). When data changes, the slots of this
data get new values. An answer depends on the slots of the data from which it is made. Each cached
answer has a stamp: the values that these slots had before the answer was loaded. The answer is
fresh while the slots still have these values. A load queries the database, but a cache look-up
doesn't.

An `Answer` doesn't depend on the individual request. When `responses.py` makes a response from an
answer, it applies the request's method, conditions, range and content coding. `origins.py` adds the
security policy headers for the requested host.

This module doesn't check the rights of readers. `api/routes.py` checks who may read a private
realm. `pinned_reads.opened` checks the pin of a pinned read. A pin is a signed token that lets one
reader read one realm at exactly one generation.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache
from threading import Lock
from typing import TypeAlias
from urllib.parse import quote

from django.conf import settings

from definitions.extensions import EXECUTABLE_EXTENSIONS, MODULE_ENDINGS
from notifications.board import Slots
from notifications.channels import index_key, path_key, realm_key
from notifications.emit import local_board
from notifications.stamped_cache import StampedCache
from realms.addresses import SOURCE_ENDINGS, realm_candidates
from realms.content.resolve import Resolved, ResolvedFile, resolve
from realms.errors import HistoryEnds, Misdirected, NotFound, RealmError
from realms.http.compression import Coding, compressed
from realms.http.headers import CORS, of_content, of_file
from realms.http.replies import Finished
from realms.models import Realm
from realms.serving.compact import Answer
from realms.serving.contents import (
    MAKERS,
    Content,
    Variant,
    make_module,
    raw,
    refusal,
    without_bytes,
)
from realms.serving.transpiling import TranspilerFailed
from reindex.reading.card_paths import FRONT_PAGE

_PROBED = {
    Variant.SOURCE: SOURCE_ENDINGS,
    Variant.MODULE: MODULE_ENDINGS,
    Variant.HTML: ("",),
}
#: Where an answer is cached. The variant selects the cache, and the key selects the entry.
Place: TypeAlias = tuple[Variant, Hashable]
_COMPRESSING = [Lock() for _ in range(64)]


class Unfinished(Exception):
    """The front (`realms/front.py`), which receives each request before Django, can't answer this
    request. Django must answer it, because the realm is private or the load failed."""


class _FailedForAll(Exception):
    """The load of a public file failed with `error`. Every caller may read the text of `error`."""

    def __init__(self, error: RealmError | TranspilerFailed) -> None:
        super().__init__(str(error))
        self.error = error


def _new_cache() -> StampedCache[Answer]:
    return StampedCache(
        local_board(),
        max_bytes=settings.REALM_CACHE_BYTES,
        size_of=lambda answer: answer.size,
        shared_by=lambda answer: answer.frame,
        bound_ns=int(settings.REALM_STALENESS_BOUND * 1e9),
    )


@lru_cache(maxsize=1)
def caches() -> dict[Variant, StampedCache[Answer]]:
    """Returns this process's source cache, transpiled-module cache and page cache."""
    return {variant: _new_cache() for variant in Variant}


def cached(variant: Variant, url: str, at_least: int = 0) -> Answer | None:
    """Returns the cached answer at `url` if the answer is fresh and has the generation `at_least`
    or a later one. Otherwise returns None."""
    answer = caches()[variant].get(url)
    return answer if answer is None or not at_least or answer.high >= at_least else None


def finished(place: Place, answer: Answer, reply: Finished) -> None:
    """Adds a finished reply to the cached answer that the reply was made from. A finished reply is
    a complete response, which later requests get unchanged. If two threads add replies to the same
    answer at once, one of the replies can get lost. The next request that needs the lost reply
    makes it anew."""
    answer.replies = (*answer.replies, reply)
    caches()[place[0]].weigh(place[1])


def coded(variant: Variant, url: str, answer: Answer, coding: Coding | None) -> Coding | None:
    """Compresses the answer's body for a client that prefers `coding`, and stores the compressed
    body in the answer, unless an earlier call has done so. Returns `coding`, or None if the answer
    must not be compressed."""
    plain = answer.body
    if coding is None or not answer.frame.compressible:
        return None
    # The body's hash selects one of several locks. With a single lock, the compression of a large
    # body would delay the answers with other bodies.
    with _COMPRESSING[hash(plain) % len(_COMPRESSING)]:
        if coding not in answer.coded:
            body = compressed(plain, coding)
            made = body if len(body) < len(plain) else None
            answer.coded = {**answer.coded, coding: made}
            caches()[variant].weigh(url)
    return coding


def lacks_file(answer: Answer, variant: Variant) -> bool:
    """Returns whether the answer is a 404 because its realm has no module or asset at the URL. The
    realm may still have a page there."""
    no_file = variant is Variant.MODULE and answer.status == 404
    return no_file and answer.realm_url is not None


def load(variant: Variant, url: str, *, alone: bool = False) -> Answer:
    """Loads an answer from the database. `url` is absolute and unescaped.

    Concurrent calls for one URL share one load, so the load may have begun before this call. With
    `alone`, this call drops the cached answer, makes a load that no other call shares, and doesn't
    cache the new answer.
    """
    if alone:
        caches()[variant].drop(url)
        return _from_database(variant, url)
    try:
        return _shared(variant, url, lambda: _from_database(variant, url))
    except Unfinished:
        # This call joined a load that `load_public` had started. Such a load raises Unfinished if
        # the realm is private, or after an unexpected exception.
        return _from_database(variant, url)
    except _FailedForAll as failure:
        raise failure.error from failure


def load_public(variant: Variant, url: str) -> Answer:
    """Loads an answer that everyone may read, without checking the caller's rights.

    If the realm is private, raises Unfinished before it transpiles the file. If the load of a
    public file raises a RealmError or TranspilerFailed, the caller gets this exception. Any other
    exception, for example because of a broken database connection, becomes Unfinished.

    One SQL statement reads the file and whether everyone may read the realm. So both belong to the
    same moment. This call may join a load that `load` has started for a user who may read a private
    realm. The answer may then be private, so the caller of `load_public` must check
    `answer.public`. If the joined load fails, this call raises Unfinished, because the error text
    may quote a private file.
    """

    def from_database() -> Answer:
        try:
            return _from_database(variant, url, public_only=True)
        except (RealmError, TranspilerFailed) as error:
            raise _FailedForAll(error) from error
        except Exception as error:
            raise Unfinished from error

    try:
        return _shared(variant, url, from_database)
    except _FailedForAll as failure:
        raise failure.error from failure
    except Exception as error:
        raise Unfinished from error


def committed(variant: Variant, url: str) -> Answer:
    """Makes an answer from the database, without caches. The verifier (`coherence/verifier.py`)
    compares the answers of the replicas with this answer."""
    found = resolve(url, _extensions(variant, url))
    return _answer(url, found, lambda it: MAKERS[variant](url, it))


def load_at(realm_url: str, generation: int, path: str) -> Answer:
    """Returns an answer with a module or asset of a realm at exactly one generation, for workers
    that render cards.

    If `path` lacks the file's extension, the answer is a redirect to the file, so that each module
    has only one URL.
    """
    url, key = realm_url + path, (realm_url, generation, path)
    cache = caches()[Variant.MODULE]

    def make(found: Resolved) -> Content:
        if not found.whole:
            return refusal(HistoryEnds(url=realm_url, generation=generation))
        if found.file is not None and found.file.path != path:
            name = found.file.path.rsplit("/", 1)[-1]
            return Content(302, (("location", quote(name)),), b"")
        return _reused(found, cache.peek(url)) or make_module(url, found)

    def from_database() -> Answer:
        found = resolve(url, _extensions(Variant.MODULE, url), at=generation)
        return _answer_of(realm_url, url, found, make)

    return cache.get(key) or cache.load(key, Slots([realm_key(realm_url)]), from_database)


def cached_at(realm_url: str, generation: int, path: str) -> Answer | None:
    """Returns the answer that `load_at` has stored in this process's cache. Returns None if the
    cache has no fresh answer."""
    return caches()[Variant.MODULE].get((realm_url, generation, path))


def source_at(realm_url: str, generation: int, path: str) -> Answer:
    """Returns an answer with the stored bytes of a file at exactly one generation."""
    url = realm_url + path

    def make(found: Resolved) -> Content:
        if not found.whole:
            return refusal(HistoryEnds(url=realm_url, generation=generation))
        return raw(found.file, "source") if found.file else refusal(NotFound(url=url))

    return _answer_of(realm_url, url, resolve(url, at=generation), make)


# --- Pieces ------------------------------------------------------------------------------------


def _extensions(variant: Variant, url: str) -> tuple[str, ...]:
    return ("",) if url.endswith(("/", *EXECUTABLE_EXTENSIONS)) else _PROBED[variant]


def _from_database(variant: Variant, url: str, *, public_only: bool = False) -> Answer:
    """Makes an answer from the database. Reuses the content of the cached answer if the file is
    unchanged. Raises Unfinished if `public_only` is set and the realm is private."""
    extensions, before = _extensions(variant, url), caches()[variant].peek(url)
    made_from = before.made_from if before else None
    # `before` is the cached answer, which may be stale. If the file still has the hash of the file
    # that `before` was made from, `resolve` doesn't fetch the file's bytes.
    found = resolve(url, extensions, known=made_from.sha256 if made_from else None)
    if _same_bytes(found, made_from) and not _reused(found, before):
        # The file has the same bytes as the file of `before`, but another name or other times. So
        # the content of `before` can't be reused. The first `resolve` didn't fetch the bytes, so
        # fetch them now for the new content.
        found = resolve(url, extensions)
    if public_only and found is not None and not found.public:
        raise Unfinished
    answer = _answer(url, found, lambda it: _reused(it, before) or MAKERS[variant](url, it))
    return _nowhere(url) if _lacks_its_slash(url, answer, found) else answer


def _shared(variant: Variant, url: str, load: Callable[[], Answer]) -> Answer:
    """Calls `load` once for all concurrent callers with this URL. Caches and returns the answer."""
    extensions = _extensions(variant, url)
    return caches()[variant].load(
        url, _watched(variant, url), load, lambda it: _narrowed(url, extensions, it)
    )


def _watched(variant: Variant, url: str) -> Slots:
    """Returns the board's slots for all data that can affect the answer at a URL. These are the
    slots of every realm that may exist at or above the URL, and of every file that the URL may
    stand for. For a page, the result also has the slots of the indexes of these realms. An index
    holds the rendered pages of a realm."""
    realms = realm_candidates(url)
    keys = [realm_key(realm) for realm in (*realms, f"{url}/")]
    keys += [path_key(url + extension) for extension in _extensions(variant, url)]
    if variant is Variant.HTML:
        keys += [index_key(realm) for realm in realms]
        # In a source realm, the URL of a subfolder redirects browsers to the published page. A
        # client that accepts any media type gets this redirect only if the subfolder contains the
        # file FRONT_PAGE. So this file affects the answer.
        keys.append(path_key(url + FRONT_PAGE))
    return Slots(keys)


def _narrowed(url: str, extensions: tuple[str, ...], answer: Answer) -> Slots | None:
    """Returns the slots that an answer depends on if the answer was made from a file. These are the
    slots of every realm that may exist at or above the URL, and of the paths that `resolve` tries
    in turn, up to the file's path. Returns None for any other answer, because it depends on all
    slots that `_watched` returns."""
    file, realm_url = answer.made_from, answer.realm_url
    if file is None or realm_url is None:
        return None
    found = (realm_url + file.path).removeprefix(url)
    before = extensions[: extensions.index(found) + 1]
    realms = map(realm_key, realm_candidates(url))
    return Slots([*realms, *(path_key(url + extension) for extension in before)])


def _same_bytes(found: Resolved | None, made_from: ResolvedFile | None) -> bool:
    file = found.file if found is not None else None
    return file is not None and made_from is not None and file.sha256 == made_from.sha256


def _reused(found: Resolved | None, before: Answer | None) -> Content | None:
    """Returns the content of the cached answer `before` if its file has the same bytes, name and
    times as the current file. Otherwise returns None. The name and the times must be the same
    because the content's headers contain them."""
    if before is None or found is None or found.file is None:
        return None
    if before.made_from != without_bytes(found.file):
        return None
    return before.content


def _nowhere(url: str) -> Answer:
    """Returns the 404 answer for a URL that lies in no realm."""
    return _outside(refusal(NotFound(url=url)))


def _outside(content: Content) -> Answer:
    """Returns an answer that belongs to no realm."""
    return Answer(content, content.headers + CORS, None, True, 0, 0)


def _lacks_its_slash(url: str, answer: Answer, found: Resolved | None) -> bool:
    """Returns whether a URL is an inner realm's URL without the final slash, and the outer realm
    has neither a file nor a page at the URL. If so, the URL's answer is a 404 that belongs to no
    realm. `api/routes.py` turns this 404 into a redirect to the inner realm."""
    if found is None or found.file is not None or url.endswith("/"):
        return False
    shown = found.kind == "published" and answer.status in (200, 500)
    return not shown and Realm.objects.filter(url=f"{url}/").exists()


def _answer_of(
    realm_url: str, url: str, found: Resolved | None, make: Callable[[Resolved], Content]
) -> Answer:
    """Makes the answer for a pinned read at a URL that should lie in the realm `realm_url`. If an
    inner realm contains the URL, the answer is the error Misdirected. If the realm `realm_url`
    doesn't exist, the answer is the error NotFound."""
    if found is not None and found.realm_url != realm_url and found.realm_url.startswith(realm_url):
        return _outside(refusal(Misdirected(url=url, realm=found.realm_url)))
    found = found if found and found.realm_url == realm_url else None
    # A pinned read requests `/_at/<path>`, and only the pin says in which realm and at which
    # generation. So a shared cache must not store the answer.
    return _answer(url, found, make, pinned=True)


def _answer(
    url: str, found: Resolved | None, make: Callable[[Resolved], Content], *, pinned: bool = False
) -> Answer:
    """Makes an answer with the content that `make` returns. The answer gets headers with the realm
    and the generation, and headers that say who may cache the answer."""
    if found is None:
        return _nowhere(url)
    content = make(found)
    low, high = found.low, found.high
    if content.generation is not None:
        low = high = content.generation
    shared = not pinned and _same_for_all(url, found, content)
    headers = (
        *of_content(content.headers, found.realm_url, high, public=found.public, shared=shared),
        *of_file(found.realm_url, high, public=found.public, compressible=content.compressible),
    )
    return Answer(content, headers, found.realm_url, found.public, low, high)


def _same_for_all(url: str, found: Resolved, content: Content) -> bool:
    """Returns whether all requests with the same URL and Accept header get this answer."""
    if content.status not in (200, 302, 404) or url.rpartition("/")[2].startswith("_"):
        # Errors other than 404 may be temporary. A name that starts with `_` belongs to an API
        # endpoint.
        return False
    # In a source realm, an answer with status 200 that isn't made from a file is a page for
    # visitors. At the same URL, the realm's owner gets a draft.
    return found.kind == "published" or content.made_from is not None or content.status != 200
