"""Tests the checks of the prerenderer's results. The prerenderer is a process that runs card code
and writes the results, so card code can forge any result."""

import json
import subprocess
import sys
from typing import Any

import pytest
from pytest_django import Settings

from reindex.prerender import sandbox
from reindex.prerender.host import Host
from reindex.prerender.results import MAX_CAUSES, MAX_WORDS, checked_card, checked_definitions

URL = "http://ada.localhost:4201/card"
SEARCH: dict[str, Any] = {
    "_type": {"module": "http://ada.localhost:4201/note", "name": "Note"},
    "_types": ["http://ada.localhost:4201/note/Note"],
    "_fields": {"title": "string", "all": [{"id": "id", "size": "number"}]},
    "_text": "words",
    "title": "words",
}
GOOD: dict[str, Any] = {
    "html": {"isolated": "<p/>"},
    "search": SEARCH,
    "links": [f"{URL}s"],
    "warnings": [{"key": "author", "message": "author is not there"}],
    "references": [{"key": "text", "url": f"{URL}.png", "kind": "image"}],
}
ERROR: dict[str, Any] = {"status": 422, "title": "Wrong", "message": "it is wrong", "causes": []}
DEFINITION: dict[str, Any] = {
    "codeRef": {"module": "http://ada.localhost:4201/note", "name": "Note"},
    "displayName": "Note",
    "description": None,
    "fields": {"title": {"kind": "contains", "type": "string", "computed": False, "more": 1}},
    "adoptionChain": [{"module": "@realm/base", "name": "Card"}],
}


def nested(depth: int) -> Any:
    inner: Any = "string"
    for _ in range(depth):
        inner = {"a": inner}
    return inner


def test_valid_results_and_errors_pass_the_check_unchanged() -> None:
    told = {"type": "card", "url": URL, "ms": 3}
    assert checked_card({**told, "ms": 3.9, **GOOD, "size": 400}) == {**told, **GOOD}
    assert checked_card({**told, "error": ERROR, "size": 90}) == {**told, "error": ERROR}
    assert checked_definitions({"definitions": {"Note": DEFINITION}, "size": 9}) == {
        "definitions": {"Note": DEFINITION}
    }
    error = {**ERROR, "dependencies": [ERROR]}
    assert checked_definitions({"error": error}) == {"error": error}


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"error": 5},
        {"error": None},
        {"error": {**ERROR, "status": True}},
        {"error": {**ERROR, "status": 200}},
        {"error": {**ERROR, "message": ["it"]}},
        {"error": {**ERROR, "module": {}}},
        {"error": {**ERROR, "causes": "it"}},
        {"error": {**ERROR, "dependencies": ["it"]}},
        {**GOOD, "error": 5},
        {**GOOD, "html": {"isolated": 5}},
        {**GOOD, "links": [5]},
        {**GOOD, "search": {**SEARCH, "_types": 5}},
        {**GOOD, "search": {**SEARCH, "_type": "Note"}},
        {**GOOD, "search": {**SEARCH, "_fields": {"title": []}}},
        {**GOOD, "search": {**SEARCH, "_fields": {"title": 5}}},
        {**GOOD, "search": {**SEARCH, "_fields": nested(900)}},
        {**GOOD, "search": {**SEARCH, "_text": "x" * 100_001}},
        {**GOOD, "size": 8_000_001},
        {**GOOD, "warnings": ["it"]},
        {**GOOD, "warnings": [{"key": "author"}]},
        {**GOOD, "warnings": GOOD["warnings"] * 21},
        {**GOOD, "references": [{"key": "text", "url": 5, "kind": "image"}]},
        {**GOOD, "references": [{"key": "text", "url": URL, "kind": "code"}]},
        {**GOOD, "references": GOOD["references"] * 1001},
    ],
)
def test_a_forged_card_result_becomes_an_error_of_its_card(forged: dict[str, Any]) -> None:
    checked = checked_card({"type": "card", "url": URL, "ms": "long", **forged})
    assert checked.keys() == {"type", "url", "ms", "error"}
    assert (checked["ms"], checked["error"]["card"]) == (0, URL)
    assert checked["error"]["message"].startswith("this card could not be rendered: it")


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"error": "x"},
        {"error": {**ERROR, "dependencies": ["x"]}},
        {"definitions": []},
        {"definitions": {"Note": {**DEFINITION, "fields": {"title": "string"}}}},
        {"definitions": {"Note": DEFINITION}, "error": "x"},
    ],
)
def test_a_forged_module_result_becomes_an_error_of_its_module(forged: dict[str, Any]) -> None:
    checked = checked_definitions(forged)
    assert checked.keys() == {"error"}
    assert (checked["error"]["status"], checked["error"]["title"]) == (500, "Build Failed")


def test_the_texts_of_an_error_are_cut_to_a_limit() -> None:
    long = {**ERROR, "message": "x" * 50_000_000, "causes": ["y" * 9_999] * 99, "more": "z" * 9_999}
    error = checked_card({"url": URL, "error": long})["error"]
    assert len(error["message"]) == MAX_WORDS + len(" …")
    assert len(error["causes"]) == MAX_CAUSES
    assert len(json.dumps(error)) < 60_000


def test_the_texts_of_a_warning_and_of_a_reference_are_cut_to_a_limit() -> None:
    warning = {"key": "k" * 9_999, "message": "m" * 9_999, "more": "z" * 9_999}
    reference = {**GOOD["references"][0], "key": "k" * 9_999}
    checked = checked_card({**GOOD, "url": URL, "warnings": [warning], "references": [reference]})
    cut = {name: f"{name[0] * MAX_WORDS} …" for name in ("key", "message")}
    assert checked["warnings"] == [cut]
    assert checked["references"] == [{**reference, "key": cut["key"]}]


def test_infinite_numbers_and_half_characters_are_replaced() -> None:
    line = rb'{"a": 1e999, "b": "\uD800", "c": "\ud800", "d": "\u0000"}'
    lost = "\N{REPLACEMENT CHARACTER}"
    assert sandbox._read(line) == {"a": None, "b": lost, "c": lost, "d": lost}
    with pytest.raises(sandbox.SandboxDied, match="Infinity is not a number"):
        sandbox._read(b'{"a": Infinity}')


def test_an_overlong_line_of_output_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker, which reads the prerenderer's stdout, needs only limited memory, even if card
    code prints an endless line."""
    monkeypatch.setattr(sandbox, "MAX_LINE", 1000)
    lines = "x" * 100_000 + r"\nnonce{}\nnonce" + "y" * 5000 + r"\n\nxnonce\nnonce[]\n"
    with subprocess.Popen(
        [sys.executable, "-c", f"print('{lines}', end='')"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        heard = list(sandbox._Talk(_host(process), print, lambda asked: {})._lines())
    assert [(line[:2], size) for line, size in heard] == [(b"{}", 3), (b"yy", 5001), (b"[]", 3)]
    assert max(len(line) for line, _ in heard) <= 1000


@pytest.mark.parametrize(
    ("ending", "guess"), [("os.abort()", "-6, most likely for lack of memory"), ("exit(3)", "3")]
)
def test_only_a_process_that_a_signal_ended_may_have_lacked_memory(ending: str, guess: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", f"import os; input(); {ending}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        with pytest.raises(sandbox.SandboxDied) as died:
            sandbox.run({}, _host(process), print, lambda asked: {})
    assert str(died.value) == f"the prerenderer ended with status {guess}"


def test_a_process_that_sends_nothing_is_not_said_to_have_lacked_memory(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REALM_RENDER_SECONDS = 0.1
    monkeypatch.setattr(sandbox, "GRACE_SECONDS", 0.1)
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        with pytest.raises(sandbox.SandboxDied, match=r"sent nothing for 0\.2 s"):
            sandbox.run({}, _host(process), print, lambda asked: {})


def _host(process: "subprocess.Popen[bytes]") -> Host:
    return Host(process, "nonce", "version")
