"""Tests how `_definition` answers invalid requests, and requests for modules that can't be
built."""

import threading

import pytest
from django.test import override_settings

from definitions.models import Definition
from realms.api import definition_views
from realms.models import Realm
from reindex.prerender.module_builder import ModuleBuilder
from reindex.reading.replicas import ReplicaUnavailable
from tests.support import make
from tests.support.clients.definitions_told import PRIVATE, SITE, ask, error, told
from tests.support.web import API, Web


@pytest.mark.parametrize(
    ("query", "parameter", "why"),
    [
        ("", "module", "0 times"),
        ("module=", "module", "characters"),
        ("module=a&module=b", "module", "2 times"),
        ("module=" + "a" * 2049, "module", "2048 characters"),
        ("module=a%00", "module", "control character"),
        ("module=a%2500", "module", "control character"),
        ("module=a%0Ab", "module", "control character"),
        ("module=@lodash", "module", "is not a module"),
        ("module=http://[/x", "module", "is not a module"),
        ("module=thing&name=", "name", "characters"),
        ("module=thing&name=A&name=B", "name", "2 times"),
        ("module=thing&name=a%07", "name", "control character"),
        ("module=thing&name=" + "a" * 201, "name", "200 characters"),
    ],
)
def test_an_invalid_parameter_is_named(
    web: Web, site: Realm, query: str, parameter: str, why: str
) -> None:
    told_of = error(web.get(f"{SITE}_definition?{query}", API), 400)
    assert told_of["source"] == {"parameter": parameter}
    assert why in told_of["message"]


@pytest.mark.parametrize(
    "module",
    ["nowhere", "dot.png", "index.json", "index", "", "..", "/nobody/x", "http://else.example/x"],
)
def test_a_file_that_is_not_a_module_is_a_404(web: Web, site: Realm, module: str) -> None:
    missing = error(ask(web, module or "."), 404)
    assert "was not found" in missing["message"]
    assert not Definition.objects.exists()


def test_a_404_for_a_missing_name_lists_the_exported_names(web: Web, site: Realm) -> None:
    missing = error(ask(web, "thing", "Thong"), 404)
    assert missing["meta"] == {"exports": ["Owner", "Thing"]}
    assert missing["message"].endswith("exports no card named Thong; it exports Owner, Thing")


def test_a_private_module_is_answered_like_a_missing_one(
    web: Web, site: Realm, private: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers and users of other realms get the same answer for a private and a missing module,
    even while no place for a build is free (`places` is 0)."""
    for headers in ({}, make.realm_login(site, "ada")):
        for places in (2, 0):
            monkeypatch.setattr(definition_views, "_places", threading.Semaphore(places))
            there = ask(web, f"{PRIVATE}secret", **headers)
            nowhere = ask(web, f"{PRIVATE}nowhere", **headers)
            assert there.status == nowhere.status == 404
            assert there.text.replace("secret", "nowhere") == nowhere.text
            assert set(there.headers) == set(nowhere.headers)
    assert not Definition.objects.exists()


BROKEN: dict[str, tuple[bytes, int, str, list[str]]] = {
    "syntax": (b"export class Broken extends {", 406, "SyntaxError", []),
    "throws": (b'throw new Error("not today", { cause: new Error("too late") });', 422,
               "not today", []),
    "on-syntax": (b'import "./syntax.tsx";', 406, "syntax.tsx", ["syntax.tsx"]),
    "on-throws": (b'import "./throws";', 422, "not today", ["throws.tsx"]),
    "on-on-throws": (b'import "./on-throws";', 422, "not today", ["throws.tsx", "on-throws.tsx"]),
    "on-nothing": (b'import "./nothing.ts";', 422, "nothing.ts", ["nothing.ts"]),
    "on-package": (b'import "lodash";', 422, "lodash", []),
    "on-no-export": (b'import { nope } from "./thing.tsx"; nope;', 422, "nope", []),
    "hangs": (b"while (true);", 422, "took longer than 1000 ms", []),
    "on-hangs": (b'import "./hangs.tsx";', 422, "hangs.tsx took longer", []),
}  # fmt: skip


def test_a_failed_build_names_the_reason_and_the_failing_import(
    web: Web, site: Realm, builds: list[str]
) -> None:
    make.write_paths(site, {f"{name}.tsx": code for name, (code, *_) in BROKEN.items()})
    with override_settings(REALM_RENDER_SECONDS=1):
        for name, (_, status, says, blamed) in BROKEN.items():
            for _ in range(2):
                failed = error(ask(web, name, "Any"), status)
                assert says in failed["message"], name
                to_blame = [each["module"] for each in failed["meta"]["dependencies"]]
                assert to_blame == [SITE + each for each in blamed], name
    assert len(builds) == len(BROKEN), "a stored error was built again"
    throws = error(ask(web, "on-on-throws"), 422)["meta"]
    assert throws["dependencies"][0]["causes"] == ["too late"]
    syntax = error(ask(web, "on-syntax"), 406)["meta"]
    assert "Unexpected token" in syntax["dependencies"][0]["message"]
    assert Definition.objects.filter(expires_at=None, realm_url=SITE).count() == 0


def test_an_unreachable_replica_is_a_503_and_no_stored_error(
    web: Web, site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(ask(web, "thing"))

    def away(builder: ModuleBuilder, module_url: str) -> None:
        raise ReplicaUnavailable("there is none")

    monkeypatch.setattr(ModuleBuilder, "locate", away)
    busy = ask(web, "person")
    assert "can't be read at present" in error(busy, 503)["message"]
    assert busy.headers["retry-after"] == "1"
    assert Definition.objects.count() == 1


def test_beyond_the_limit_of_waiting_requests_the_next_gets_503(
    web: Web, site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit applies only to requests that wait for a build. A request for stored definitions
    doesn't wait."""
    told(ask(web, "person"))
    monkeypatch.setattr(definition_views, "_places", threading.BoundedSemaphore(1))
    with definition_views._waiting("another"):
        busy = ask(web, "thing")
        assert error(busy, 503)["message"] == (
            f"the definitions of {SITE}thing.tsx are not made yet; try again"
        )
        assert busy.headers["retry-after"] == "1"
        told(ask(web, "person"))
    told(ask(web, "thing"))


def test_refused_clients_get_staggered_retry_times() -> None:
    """The Retry-After of a thousand clients refused at once is 30 seconds at most."""
    turns = definition_views.Turns()
    now = 1000 * definition_views.NANOSECONDS
    told = [turns.take(now) for _ in range(1000)]
    assert told == sorted(told)
    assert {told.count(second) for second in range(1, 30)} == {turns.PER_SECOND}
    assert told[-1] == turns.LAST_SECONDS
    assert turns.take(now + 60 * definition_views.NANOSECONDS) == 1
