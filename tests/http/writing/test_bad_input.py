"""Tests that every kind of invalid input gets the expected status and a message that says what is
wrong.

Each case is sent to the application and to a real replica. The requests must leave the database
unchanged. No answer may be a 5xx or show a line of the server's code.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs import messages
from tests.support import make
from tests.support.bad.bodies import bodies
from tests.support.bad.names import server_cases
from tests.support.bad.paths import paths
from tests.support.bad.realm_requests import realm_endpoints
from tests.support.bad.requests import (
    ADA_IN_SITE,
    ADAS_PAGE,
    BOBS,
    BOBS_PAGE,
    DRAFT,
    PRIVATE,
    SITE,
    Case,
)
from tests.support.bad.tokens import tokens
from tests.support.cluster import Answer, cluster
from tests.support.web import ORIGIN, SOURCE, Web, ask, everything, send_raw, served

CASES = [*bodies(), *server_cases(), *tokens(), *paths(), *realm_endpoints()]


def make_world() -> None:
    """Makes the source realms and published realms of Ada and Bob. Their jobs stay queued."""
    sync_base_realm()
    ada, bob = make.user("ada"), make.user("bob")
    site = make.source(SITE, ada, make.SITE)
    make.source(PRIVATE, ada, {"index.json": make.SITE["index.json"]}, public=False)
    draft = make.source(DRAFT, ada, {})
    type(draft).objects.filter(pk=draft.pk).update(publishable=False)
    make.source(f"{ORIGIN}/bob/adas/", ada, {})
    bobs = make.source(BOBS, bob, make.SITE)
    make.publish(site, ADAS_PAGE)
    make.publish(bobs, BOBS_PAGE)


@dataclass(frozen=True)
class World:
    """A server, and all database rows before the first invalid request."""

    web: Web
    before: dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    """Yields the same server and rows to every case, because no case may change the rows."""

    with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as patch, served() as web:
        patch.setattr(messages, "send", lambda *_, **__: None)
        make_world()
        try:
            yield World(web, everything())
        finally:
            call_command("flush", interactive=False, verbosity=0)


def fault(case: Case, answer: Answer, *, behind_a_server: bool = False) -> str:
    """Returns what is wrong with the answer to an invalid request, or an empty text."""
    text = answer.body.decode(errors="replace")
    told = f"{case.name}: {answer.status} {dict(answer.headers)} {text[:300]}"
    if answer.status >= 500 or "Traceback" in text or '.py"' in text:
        return told
    if case.edge and behind_a_server and answer.status in (400, 404, 405, 411, 413, 414, 431):
        return ""
    if answer.status != case.status:
        return f"{told}; expected {case.status}"
    if case.method == "HEAD":
        return ""
    try:
        errors = json.loads(text)["errors"]
    except (ValueError, KeyError, TypeError):
        return f"{told}; expected a JSON body with errors"
    if case.at_server:
        shaped = [isinstance(each, str) for each in errors]
        messages = " ".join(map(str, errors))
    else:
        shaped = [each["status"] == case.status and bool(each["title"]) for each in errors]
        messages = " ".join(each["message"] for each in errors)
    if not errors or not all(shaped):
        return f"{told}; expected errors of the endpoint's shape"
    if "json" not in answer.headers.get("content-type", ""):
        return f"{told}; expected JSON"
    if answer.headers.get("access-control-allow-origin") != "*":
        return f"{told}; a page of another site may not read it"
    missing = [word for word in case.says if word not in messages]
    return f"{told}; expected the words {missing}" if missing else ""


def send(case: Case, port: int) -> Answer:
    return ask(port, case.method, case.url, body=case.body, headers=case.headers, accept=None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name[:70])
def test_bad_input_gets_its_status_and_an_error_that_names_it(world: World, case: Case) -> None:
    wrong = fault(case, send(case, world.web.port))
    if wrong:
        pytest.fail(wrong, pytrace=False)
    assert everything() == world.before


def test_an_interrupted_upload_is_refused_and_writes_nothing(world: World) -> None:
    head = (
        f"POST /ada/site/half.md HTTP/1.1\r\nHost: localhost:4201\r\nAccept: {SOURCE}\r\n"
        f"Authorization: {ADA_IN_SITE}\r\nContent-Length: 100\r\n\r\n"
    )
    received = send_raw(world.web.port, head.encode() + b"only a part", break_off=True)
    assert b"400 Bad Request" in received
    assert b"ended after 11 of 100 bytes" in received
    assert everything() == world.before


def test_a_body_of_unknown_length_is_refused(world: World) -> None:
    received = send_raw(world.web.port, _chunked("chunked.md", b"5\r\nhello\r\n0\r\n\r\n"))
    assert b"411 Length Required" in received
    assert everything() == world.before


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_a_real_replica_refuses_all_bad_input_too(tmp_path: Path, sent: Any) -> None:
    make_world()
    before = everything()
    with cluster(tmp_path, 1) as running:
        replica = running.replicas[0]
        answers = [(case, send(case, replica.port)) for case in CASES]
        faults = [fault(case, answer, behind_a_server=True) for case, answer in answers]
        assert not any(faults), "\n".join(filter(None, faults))
        assert everything() == before

        whole = _chunked("whole.md", b"5\r\nhello\r\n0\r\n\r\n")
        assert b" 411 " in send_raw(replica.port, whole).split(b"\r\n")[0]
        chunked = _chunked("half.md", b"10\r\nonly a part")
        half = chunked.replace(b"Transfer-Encoding: chunked", b"Content-Length: 100")
        for broken in (chunked, half):
            assert b" 204 " not in send_raw(replica.port, broken, break_off=True)
        assert everything() == before


def _chunked(path: str, body: bytes) -> bytes:
    head = (
        f"POST /ada/site/{path} HTTP/1.1\r\nHost: localhost:4201\r\nAccept: {SOURCE}\r\n"
        f"Connection: close\r\nAuthorization: {ADA_IN_SITE}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head.encode() + body
