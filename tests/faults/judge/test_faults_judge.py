"""Tests the judge of fault campaigns. In the tests, the judge compares correct and wrong answers
with a short list of commits (ACCOUNT)."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from realms.models import EVERYONE
from tests.faults.clients import EDGE, file
from tests.faults.judge.checker import judge
from tests.faults.judge.history import History, Operation, Read, marks_of
from tests.faults.judge.truth import Truth

BOUND = 2.0
SOURCE, PAGES = "http://localhost:4201/ada/site/", "http://ada.localhost:4201/"
INNER = f"{PAGES}deep/"
OLD, NEW = "mark00000001z", "mark00000002z"


def content(mark: str) -> bytes:
    """Returns the content of label.ts with this mark."""
    return file("label.ts", mark)


def sha(mark: str) -> str:
    return hashlib.sha256(content(mark)).hexdigest()


def entry(at: float, what: str, was: Any, became: Any) -> dict[str, Any]:
    return {"at": at, "what": what, "done": "", "was": was, "became": became}


def realm(realm_id: str, url: str, kind: str, generation: int) -> dict[str, Any]:
    return {"id": realm_id, "url": url, "kind": kind, "generation": generation}


def version(mark: str, start: int, until: int | None) -> dict[str, Any]:
    return {
        "realm_id": "s", "path": "label.ts", "sha256": sha(mark),
        "from_generation": start, "until_generation": until,
    }  # fmt: skip


def shown(generation: int, source_generation: int, realm_id: str = "p") -> dict[str, Any]:
    return {
        "realm_id": realm_id, "generation": generation,
        "source_id": "s", "source_generation": source_generation,
    }  # fmt: skip


def opened(realm_id: str, read: bool) -> dict[str, Any]:
    return {"realm_id": realm_id, "audience": EVERYONE, "read": read}


def head(generation: int) -> dict[str, Any]:
    return {"realm_url": PAGES, "generation": generation}


#: The changes of rows that the campaign's triggers would record. Each change has the time of its
#: commit in seconds:
#: - 10: The source realm gets the old label.
#: - 20: The source realm is published with the old label.
#: - 25: The published realm's index (its rendered pages) gets the old label.
#: - 30: The source realm gets the new label.
#: - 40: The source realm is published again, with the new label.
#: - 45: The published realm's index gets the new label.
#: - 70: The source realm is also published at INNER, a URL below PAGES.
#: - 75: The realm at INNER becomes private.
#: - 80: The realm at INNER is unpublished.
#: - 100: The realm at PAGES is unpublished.
ACCOUNT = [
    entry(10, "realms_realm", None, realm("s", SOURCE, "source", 2)),
    entry(10, "realms_realmpermission", None, opened("s", True)),
    entry(10, "realms_fileversion", None, version(OLD, 2, None)),
    entry(20, "realms_realm", None, realm("p", PAGES, "published", 1)),
    entry(20, "realms_publication", None, shown(1, 2)),
    entry(20, "realms_realmpermission", None, opened("p", True)),
    entry(25, "reindex_indexhead", None, head(1)),
    entry(30, "realms_realm", realm("s", SOURCE, "source", 2), realm("s", SOURCE, "source", 3)),
    entry(30, "realms_fileversion", version(OLD, 2, None), version(OLD, 2, 3)),
    entry(30, "realms_fileversion", None, version(NEW, 3, None)),
    entry(40, "realms_realm", realm("p", PAGES, "published", 1), realm("p", PAGES, "published", 2)),
    entry(40, "realms_publication", None, shown(2, 3)),
    entry(45, "reindex_indexhead", head(1), head(2)),
    entry(70, "realms_realm", None, realm("i", INNER, "published", 1)),
    entry(70, "realms_publication", None, shown(1, 3, "i")),
    entry(70, "realms_realmpermission", None, opened("i", True)),
    entry(75, "realms_realmpermission", opened("i", True), opened("i", False)),
    entry(80, "realms_realm", realm("i", INNER, "published", 1), None),
    entry(100, "reindex_indexhead", head(2), None),
    entry(100, "realms_realm", realm("p", PAGES, "published", 2), None),
]


EDGE_SECONDS = 1.0


def verdict(*reads: Read, account: Any = ACCOUNT, operations: Any = ()) -> set[str]:
    """Judges these reads and operations, and returns the names of the broken promises."""
    contents = {sha(mark): content(mark) for mark in (OLD, NEW)}
    history = History(reads=list(reads), operations=list(operations))
    return {
        v.promise for v in judge(history, Truth(account, contents), BOUND, EDGE_SECONDS).violations
    }


def read(at: float, mark: str, generation: int | None, **other: Any) -> Read:
    """Returns a read of label.ts in the realm at PAGES, at the time `at` in seconds. The answer has
    the content with `mark` at this generation. If `mark` is empty, the answer is a 404. `other` has
    other values for fields of the read."""
    body = content(mark) if mark else b""
    plain = Read(
        at, at + 0.01, "a", "a/1", PAGES, "label.ts", "source", "", 0, 200 if mark else 404,
        generation, "hit", hashlib.sha256(body).hexdigest(), marks_of(body.decode()),
    )  # fmt: skip
    answered = other.get("realm", PAGES) if generation is not None else None
    return plain._replace(answered=answered)._replace(**other)


def where(at: float, location: str = "", **other: Any) -> Read:
    """Returns a read of the source realm's page. The answer redirects to `location`. If `location`
    is empty, the answer says that the source realm isn't published."""
    status = 302 if location else 200
    return read(
        at, "", 1, realm=SOURCE, path="", variant="where", status=status, location=location, **other
    )


@pytest.mark.parametrize(
    "true",
    [
        read(22, OLD, 1),
        read(41.9, OLD, 1),
        read(42, NEW, 2),
        read(42, NEW, 2, pin="min", pinned=2),
        read(60, OLD, 1, pin="at", pinned=1),
        read(60, "", None, pin="at", pinned=1, status=410),
        read(15, "", None),
        read(101, NEW, 2),
        read(101, "", None),
        read(130, "", None, pin="min", pinned=2),
        read(50, NEW, 2, variant="module", digest="any JavaScript"),
        read(46, NEW, 2, variant="html", path=""),
        read(46.9, OLD, 1, variant="html", path=""),
        read(24, "", 0, variant="html", path="", status=503),
        read(5, "", None, realm=SOURCE, pin=""),
        read(71, NEW, 1, realm=INNER),
        read(71.9, "", 2, realm=INNER, answered=PAGES),
        read(72, NEW, 1, path="deep/label.ts", answered=INNER),
        read(76.9, NEW, 1, realm=INNER),
        read(76, "", None, realm=INNER, status=401),
        read(81.9, "", None, realm=INNER, status=401),
        read(90, "", 2, realm=INNER, answered=PAGES),
        read(42.9, OLD, 1, replica=EDGE),
        read(42.9, OLD, 1, replica=EDGE, dated=42.0),
        read(77.9, NEW, 1, realm=INNER, replica=EDGE),
        where(15),
        where(21.9),
        where(22.2, PAGES),
        where(73, INNER),
        where(81.9, INNER),
        where(101.9, PAGES),
        where(103),
    ],
)
def test_the_judge_accepts_correct_answers(true: Read) -> None:
    assert verdict(true) == set()


@pytest.mark.parametrize(
    ("lie", "promise"),
    [
        (read(42.2, OLD, 1), "P3"),
        (read(60, "", None), "P3"),
        (read(103, NEW, 2), "P3"),
        (read(60, NEW, 2, pin="at", pinned=1), "P2"),
        (read(41, OLD, 1, pin="min", pinned=2), "P2"),
        (read(60, "", None, pin="min", pinned=2), "P2"),
        (read(60, "", None, pin="min", pinned=2, status=409), "P2"),
        (read(60, "", None, pin="at", pinned=2, status=410), "P2"),
        (read(60, OLD, 2), "P4"),
        (read(60, OLD, 2, variant="module"), "P4"),
        (read(60, OLD, 2, pin="at", pinned=2), "P2"),
        (read(39, NEW, 2), "P1"),
        (read(60, NEW, 3), "P1"),
        (read(60, OLD, 2, variant="html", path=""), "P5"),
        (read(60, OLD, 1, variant="html", path=""), "P3"),
        (read(44, NEW, 2, variant="html", path=""), "P1"),
        (read(72.2, "", 2, realm=INNER, answered=PAGES), "P3"),
        (read(72.2, "", 2, path="deep/label.ts"), "P3"),
        (read(82.2, NEW, 1, realm=INNER), "P3"),
        (read(77.2, NEW, 1, realm=INNER), "P8"),
        (read(74, "", None, realm=INNER, status=401), "P3"),
        (read(82.2, "", None, realm=INNER, status=403), "P3"),
        (read(43.2, OLD, 1, replica=EDGE), "P3"),
        (read(60, NEW, 2, replica=EDGE, dated=58.0), "P3"),
        (read(78.2, NEW, 1, realm=INNER, replica=EDGE), "P8"),
        (where(22.2), "P3"),
        (where(15, PAGES), "P3"),
        (where(90, INNER), "P3"),
        (where(103, PAGES), "P3"),
        (where(50, "http://else.localhost:4201/"), "P3"),
    ],
)
def test_the_judge_names_the_promise_that_a_wrong_answer_breaks(lie: Read, promise: str) -> None:
    assert verdict(lie) == {promise}


def test_the_judge_finds_two_transpiled_modules_of_one_content() -> None:
    one = read(50, NEW, 2, variant="module", digest="one")
    other = read(51, NEW, 2, variant="module", digest="another")
    assert verdict(one, one) == set()
    assert verdict(one, other) == {"P2"}


def test_the_judge_finds_an_index_that_goes_back_a_generation() -> None:
    fallen = [*ACCOUNT[:-2], entry(50, "reindex_indexhead", head(2), head(1))]
    assert verdict(account=fallen) == {"P5"}


def test_the_judge_finds_acknowledged_writes_that_were_not_committed() -> None:
    done = Operation(29.9, "write", SOURCE, "label.ts", NEW, 30.1, 204, 3)
    assert verdict(operations=[done]) == set()
    for lost in (replace(done, generation=4), replace(done, mark="mark00000003z")):
        assert verdict(operations=[lost]) == {"P6"}
    assert verdict(operations=[replace(done, generation=4, status=503)]) == set()
