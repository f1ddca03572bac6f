"""Answers to reads, each cached with the stamp of everything that it depends on.

An `Answer` is a complete response, except for the parts that depend on the single request: HEAD,
conditions, ranges, the content coding, and the policy of the host. The source cache, the
transpiled-module cache and the page cache are three `StampedCache`s of answers. A look-up in them
reads no database; the routes read it, to check who asks for a private answer.
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
#: The cache that an answer is in, and its key there.
Place: TypeAlias = tuple[Variant, Hashable]
_COMPRESSING = [Lock() for _ in range(64)]


class Unfinished(Exception):
    """A load has no answer for callers of whom nothing is known, on connections that nobody has
    checked: not everyone may read the realm, or the load failed."""


class _FailedForAll(Exception):
    """A load failed of a file that everyone may read, so every caller may be told the error."""

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
    """This process's source cache, transpiled-module cache and page cache."""
    return {variant: _new_cache() for variant in Variant}


def cached(variant: Variant, url: str, at_least: int = 0) -> Answer | None:
    """The fresh answer in this process's cache, if its generation is `at_least` or newer."""
    answer = caches()[variant].get(url)
    return answer if answer is None or not at_least or answer.high >= at_least else None


def finished(place: Place, answer: Answer, reply: Finished) -> None:
    """Keeps a finished reply with its answer, which is in the cache at `place`. If two threads do
    so at once, one of the replies may be made again."""
    answer.replies = (*answer.replies, reply)
    caches()[place[0]].weigh(place[1])


def coded(variant: Variant, url: str, answer: Answer, coding: Coding | None) -> Coding | None:
    """The content coding in which a client gets an answer, of which it prefers `coding`. The body
    is compressed if no client has preferred this coding before."""
    plain = answer.body
    if coding is None or not answer.frame.compressible:
        return None
    # Large bodies of one author must not make other authors' wait, so there are many locks.
    with _COMPRESSING[hash(plain) % len(_COMPRESSING)]:
        if coding not in answer.coded:
            body = compressed(plain, coding)
            made = body if len(body) < len(plain) else None
            answer.coded = {**answer.coded, coding: made}
            caches()[variant].weigh(url)
    return coding


def lacks_file(answer: Answer, variant: Variant) -> bool:
    """Whether the answer is a module's 404 within a realm, so that a page may exist at the URL."""
    no_file = variant is Variant.MODULE and answer.status == 404
    return no_file and answer.realm_url is not None


def load(variant: Variant, url: str, *, alone: bool = False) -> Answer:
    """The answer from the database. `url` is absolute and unescaped.

    Concurrent loads of one URL share one query, which may have read the database a moment ago.
    `alone` drops the cached answer and reads what is committed now.
    """
    if alone:
        caches()[variant].drop(url)
        return _from_database(variant, url)
    try:
        return _shared(variant, url, lambda: _from_database(variant, url))
    except Unfinished:
        # The load was that of a caller of whom nothing was known: see `load_public`.
        return _from_database(variant, url)
    except _FailedForAll as failure:
        raise failure.error from failure


def load_public(variant: Variant, url: str) -> Answer:
    """Like `load`, for a caller whose permissions nobody has checked, on a connection that nobody
    has checked. Raises RealmError, TranspilerFailed, and Unfinished for any other failure, and if
    not everyone may read the realm. Then nothing was made of the file, in particular no JavaScript.

    The statement that reads the file also says who may read it, so there is no moment between the
    two. The answer is private nevertheless if the load is shared with a caller who may read it. Of
    such a load's errors this caller is told nothing: they may name what a private file says.
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
    """The answer made from the database, without caches. The verifier compares replicas with it."""
    found = resolve(url, _extensions(variant, url))
    return _answer(url, found, lambda it: MAKERS[variant](url, it))


def load_at(realm_url: str, generation: int, path: str) -> Answer:
    """The module or asset of a realm at exactly one generation. Renders read this.

    A path without its extension redirects to the file, so that a module has one identity.
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
    """The answer of `load_at`, if this process's cache has it."""
    return caches()[Variant.MODULE].get((realm_url, generation, path))


def source_at(realm_url: str, generation: int, path: str) -> Answer:
    """The stored bytes of a file at exactly one generation."""
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
    """The answer as it is committed now. Raises Unfinished if `public_only` and it is private."""
    extensions, before = _extensions(variant, url), caches()[variant].peek(url)
    made_from = before.made_from if before else None
    # If the bytes are still those of the stale answer, they aren't fetched, and it is reused.
    found = resolve(url, extensions, known=made_from.sha256 if made_from else None)
    if _same_bytes(found, made_from) and not _reused(found, before):
        # Only the file's name or its times differ: a new answer needs the bytes after all.
        found = resolve(url, extensions)
    if public_only and found is not None and not found.public:
        raise Unfinished
    answer = _answer(url, found, lambda it: _reused(it, before) or MAKERS[variant](url, it))
    return _nowhere(url) if _lacks_its_slash(url, answer, found) else answer


def _shared(variant: Variant, url: str, load: Callable[[], Answer]) -> Answer:
    """The answer of one load for all who ask meanwhile."""
    extensions = _extensions(variant, url)
    return caches()[variant].load(
        url, _watched(variant, url), load, lambda it: _narrowed(url, extensions, it)
    )


def _watched(variant: Variant, url: str) -> Slots:
    """Everything whose change could change the answer: every possible realm at or above the URL,
    every file that the URL could name, and for a page the indexes of those realms."""
    realms = realm_candidates(url)
    keys = [realm_key(realm) for realm in (*realms, f"{url}/")]
    keys += [path_key(url + extension) for extension in _extensions(variant, url)]
    if variant is Variant.HTML:
        keys += [index_key(realm) for realm in realms]
        # A source realm's folder redirects every client to its page only if this file exists.
        keys.append(path_key(url + FRONT_PAGE))
    return Slots(keys)


def _narrowed(url: str, extensions: tuple[str, ...], answer: Answer) -> Slots | None:
    """What an answer that was made from a file depends on: the realms at or above the URL, the
    file, and those that would be found before it. None for other answers: they depend on all."""
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
    """The stale content, if it was made from exactly the current file. The same bytes under another
    name, or written again later, have other headers."""
    if before is None or found is None or found.file is None:
        return None
    if before.made_from != without_bytes(found.file):
        return None
    return before.content


def _nowhere(url: str) -> Answer:
    """The answer at a URL that lies in no realm."""
    return _outside(refusal(NotFound(url=url)))


def _outside(content: Content) -> Answer:
    """An answer that belongs to no realm."""
    return Answer(content, content.headers + CORS, None, True, 0, 0)


def _lacks_its_slash(url: str, answer: Answer, found: Resolved | None) -> bool:
    """Whether a URL that names nothing in its realm is a nested realm's URL without the final
    slash. Such a URL counts as outside every realm and redirects to the nested one."""
    if found is None or found.file is not None or url.endswith("/"):
        return False
    shown = found.kind == "published" and answer.status in (200, 500)
    return not shown and Realm.objects.filter(url=f"{url}/").exists()


def _answer_of(
    realm_url: str, url: str, found: Resolved | None, make: Callable[[Resolved], Content]
) -> Answer:
    """Like `_answer`, for a URL that should lie in the given realm. For a URL in a realm within it
    the answer is Misdirected, for a URL anywhere else NotFound."""
    if found is not None and found.realm_url != realm_url and found.realm_url.startswith(realm_url):
        return _outside(refusal(Misdirected(url=url, realm=found.realm_url)))
    found = found if found and found.realm_url == realm_url else None
    # By its URL alone a shared cache can't tell a pinned answer from another.
    return _answer(url, found, make, pinned=True)


def _answer(
    url: str, found: Resolved | None, make: Callable[[Resolved], Content], *, pinned: bool = False
) -> Answer:
    """Adds to content what every answer states: its realm, its generation, who may cache it."""
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
    """Whether everyone gets this answer to a request with the same URL and Accept."""
    if content.status not in (200, 302, 404) or url.rpartition("/")[2].startswith("_"):
        # A page that comes in a moment; or the URL of an endpoint, which other requests reach.
        return False
    # Where a source realm has no file, its owner sees a draft.
    return found.kind == "published" or content.made_from is not None or content.status != 200
