"""Tells the judge of a fault campaign which content was committed, and when. Times are in seconds
since 1970."""

import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from realms.models import EVERYONE
from tests.faults.judge.history import marks_of

FOREVER = float("inf")


@dataclass(frozen=True)
class Period:
    """A period when a file didn't change. `sha256` is the hash of the file's content, or None if
    the file didn't exist. `low` is the realm's generation at the start of the period, or None if
    the realm didn't exist then."""

    start: float
    end: float
    sha256: str | None
    low: int | None


@dataclass
class _Incarnation:
    """A realm from its creation to its deletion. A realm that is created at the same URL later is
    another incarnation."""

    realm_id: str
    kind: str
    #: Each generation, with the time of its commit.
    generations: list[tuple[int, float]] = field(default_factory=list)
    #: The times at which access for everyone changed, each with True if the realm became public and
    #: False if it became private.
    opened: list[tuple[float, bool]] = field(default_factory=list)
    gone: float = FOREVER


class Truth:
    """All commits so far. `account` has the rows of the table of changes, and `contents` maps the
    SHA-256 of each blob to the blob's bytes (`Postgres` in `tests/faults/postgres.py`)."""

    def __init__(self, account: list[dict[str, Any]], contents: Mapping[str, bytes]) -> None:
        self._marks = {
            sha: marks_of(data.decode(errors="replace")) for sha, data in contents.items()
        }
        self._realms: dict[str, list[_Incarnation]] = defaultdict(list)
        self._by_id: dict[str, _Incarnation] = {}
        #: realm id, path -> (from generation, until generation or None, sha256)
        self._versions: dict[tuple[str, str], dict[int, tuple[int | None, str]]] = defaultdict(dict)
        #: realm id -> generation -> (source id, source generation)
        self._shown: dict[str, dict[int, tuple[str, int]]] = defaultdict(dict)
        #: realm url -> (moment, generation of the index or None)
        self._heads: dict[str, list[tuple[float, int | None]]] = defaultdict(list)
        self._periods: dict[tuple[str, str], list[Period]] = {}
        for entry in account:
            getattr(self, f"_{entry['what']}")(entry["at"], entry["was"], entry["became"])

    def _realms_realm(self, at: float, was: Any, became: Any) -> None:
        if became is None:
            self._by_id[was["id"]].gone = at
            return
        if was is None:
            made = self._by_id[became["id"]] = _Incarnation(became["id"], became["kind"])
            self._realms[became["url"]].append(made)
        if was is None or was["generation"] != became["generation"]:
            self._by_id[became["id"]].generations.append((became["generation"], at))

    def _realms_realmpermission(self, at: float, was: Any, became: Any) -> None:
        row = became or was
        if row["audience"] == EVERYONE:
            opened = became is not None and became["read"]
            self._by_id[row["realm_id"]].opened.append((at, opened))

    def _realms_fileversion(self, at: float, was: Any, became: Any) -> None:
        if became is not None:
            versions = self._versions[became["realm_id"], became["path"]]
            versions[became["from_generation"]] = became["until_generation"], became["sha256"]

    def _realms_publication(self, at: float, was: Any, became: Any) -> None:
        if became is not None:
            shown = became["source_id"], became["source_generation"]
            self._shown[became["realm_id"]][became["generation"]] = shown

    def _reindex_indexhead(self, at: float, was: Any, became: Any) -> None:
        self._heads[(became or was)["realm_url"]].append(
            (at, became["generation"] if became else None)
        )

    # --- questions ---

    def realms(self) -> list[str]:
        """Returns the URLs of all realms that ever existed."""
        return list(self._realms)

    def newest(self, url: str) -> int | None:
        """Returns the newest generation of a realm; None if the realm doesn't exist now."""
        last = self._realms[url][-1] if self._realms.get(url) else None
        return last.generations[-1][0] if last and last.gone == FOREVER else None

    def committed_at(self, url: str, generation: int) -> float | None:
        """Returns the time of a generation's commit, or None if the generation was never
        committed."""
        for realm in self._realms.get(url, ()):
            for number, at in realm.generations:
                if number == generation:
                    return at
        return None

    def content(self, url: str, generation: int, path: str) -> str | None:
        """Returns the SHA-256 of a file's content at a generation of a realm, or None if the file
        didn't exist at this generation."""
        for realm in self._realms.get(url, ()):
            numbers = [number for number, _ in realm.generations]
            if numbers[0] <= generation <= numbers[-1]:
                return self._content(realm, generation, path)
        return None

    def _content(self, realm: _Incarnation, generation: int, path: str) -> str | None:
        realm_id = realm.realm_id
        if realm.kind == "published":
            shown = self._shown[realm_id]
            behind = [number for number in shown if number <= generation]
            if not behind:
                return None
            realm_id, generation = shown[max(behind)]
        for start, (until, sha) in self._versions.get((realm_id, path), {}).items():
            if start <= generation and (until is None or generation < until):
                return sha
        return None

    def marks(self, sha256: str | None) -> tuple[str, ...]:
        """Returns the marks in the content with this SHA-256."""
        return self._marks.get(sha256 or "", ())

    def periods(self, url: str, path: str) -> list[Period]:
        """Returns the periods between the changes of a file, from time 0 to FOREVER, in order and
        without gaps."""
        known = self._periods.get((url, path))
        if known is None:
            known = self._periods[url, path] = self._make_periods(url, path)
        return known

    def _make_periods(self, url: str, path: str) -> list[Period]:
        states: list[tuple[float, str | None, int | None]] = [(0.0, None, None)]
        for realm in self._realms.get(url, ()):
            for number, at in realm.generations:
                states.append((at, self._content(realm, number, path), number))
            if realm.gone < FOREVER:
                states.append((realm.gone, None, None))
        merged = [states[0]]
        for state in states[1:]:
            if state[1] != merged[-1][1]:
                merged.append(state)
        ends = [at for at, _, _ in merged[1:]] + [FOREVER]
        return [Period(at, end, sha, low) for (at, sha, low), end in zip(merged, ends, strict=True)]

    def gone_between(self, url: str, start: float, end: float) -> bool:
        """Returns true if between `start` and `end` there was a moment at which the realm didn't
        exist."""
        realms = self._realms.get(url, ())
        if not realms or start < realms[0].generations[0][1]:
            return True
        born = [realm.generations[0][1] for realm in realms[1:]] + [FOREVER]
        return any(
            realm.gone < end and start < next_born
            for realm, next_born in zip(realms, born, strict=True)
        )

    def readable_between(self, url: str, start: float, end: float, *, by_all: bool) -> bool:
        """Returns true if the realm existed and was public at some moment between `start` and
        `end`. With `by_all` false, returns true if it existed and was private at some moment in
        this time."""
        for realm in self._realms.get(url, ()):
            states = [(realm.generations[0][1], False), *realm.opened, (realm.gone, False)]
            for (since, opened), (until, _) in pairwise(states):
                if opened == by_all and since < until and since <= end and start < until:
                    return True
        return False

    def around(self, url: str) -> list[str]:
        """Returns the URLs of the realms that contain `url`, including deleted realms."""
        return [realm for realm in self._realms if url.startswith(realm)]

    def showing(self, source_url: str, start: float, end: float) -> set[str]:
        """Returns the URLs of the published realms that showed a source realm at some moment
        between `start` and `end`."""
        ids = {realm.realm_id for realm in self._realms.get(source_url, ())}
        return {
            url
            for url, realms in self._realms.items()
            for realm in realms
            for since, until, source_id in self._shown_through_time(realm)
            if source_id in ids and since <= end and start < until
        }

    def unshown_between(self, source_url: str, start: float, end: float) -> bool:
        """Returns true if at some moment between `start` and `end` no published realm showed the
        source realm."""
        ids = {realm.realm_id for realm in self._realms.get(source_url, ())}
        shown = sorted(
            (since, until)
            for realms in self._realms.values()
            for realm in realms
            for since, until, source_id in self._shown_through_time(realm)
            if source_id in ids
        )
        for since, until in shown:
            if since > start:
                return True
            start = max(start, until)
            if start > end:
                return False
        return True

    def _shown_through_time(self, realm: _Incarnation) -> Iterator[tuple[float, float, str]]:
        shown = self._shown.get(realm.realm_id, {})
        ends = [at for _, at in realm.generations[1:]] + [realm.gone]
        for (number, at), end in zip(realm.generations, ends, strict=True):
            if number in shown:
                yield at, end, shown[number][0]

    def index_periods(self, url: str) -> list[tuple[float, float, int | None]]:
        """Returns the periods between the changes of a realm's index, in order. The index is all
        rendered pages of the realm. Each tuple has the start, the end and the index's generation.
        The generation is None if the realm had no index."""
        heads = [(0.0, None), *self._heads.get(url, ())]
        ends = [at for at, _ in heads[1:]] + [FOREVER]
        return [(at, end, number) for (at, number), end in zip(heads, ends, strict=True)]


def staleness(periods: list[tuple[float, float]], start: float, end: float) -> float | None:
    """Returns for how many seconds an answer's content had been outdated when the read began. The
    read lasted from `start` to `end`, and the content was current during `periods`. Returns 0 if
    the content was current at any time during the read. Returns None if the content became current
    only after the read."""
    begun = periods[: bisect.bisect_right([at for at, _ in periods], end)]
    if not begun:
        return None
    return max(0.0, start - max(until for _, until in begun))
