"""Tests the limits of card code. A card with forbidden or broken code gets an error, and doesn't
affect other cards."""

import json
from typing import Any

import pytest
from pytest_django import Settings

from tests.support import make
from tests.support.data.tries import GOOD, URL, awaiting, module, trying
from tests.support.rendering import index_of, work_off
from tests.support.web import Web

#: Code that tries to make the searchable text of the module's card longer than Postgres can index.
#: The sandbox refuses the assignment to `slice`.
WORDY = """
const words = Array.from({ length: 300_000 }, (_, i) => i.toString(36)).join(" ");
const { slice } = String.prototype;
String.prototype.slice = function (...part) {
  return this.startsWith("wordy") ? words : slice.apply(this, part);
};
"""
LACKS = "card code has no files, network, environment, processes or timers"
NO_IMPORT = "can't be imported, only modules of realms"

#: Maps a card's name to the source of its module, and to the status and a part of the message of
#: its error document.
BAD: dict[str, tuple[bytes, int, str]] = {
    "deno-file": (trying('Deno.readTextFileSync("/etc/hostname")'), 500, LACKS),
    "node-file": (
        awaiting('import("node:fs").then((fs) => fs.readFileSync("/etc/hostname", "utf8"))'),
        403,
        NO_IMPORT,
    ),
    "import-file": (
        awaiting('import("file:///etc/hostname", { with: { type: "text" } })'),
        403,
        NO_IMPORT,
    ),
    "deno-socket": (trying('Deno.connect({ hostname: "127.0.0.1", port: 1 })'), 500, LACKS),
    "node-socket": (
        awaiting(
            'import("node:net").then((net) => new Promise((resolve, reject) => '
            'net.connect(1, "127.0.0.1").on("connect", resolve).on("error", reject)))'
        ),
        403,
        NO_IMPORT,
    ),
    "fetch": (awaiting('fetch("http://127.0.0.1:1/")'), 500, LACKS),
    "deno-environment": (trying('Deno.env.get("PATH")'), 500, LACKS),
    "node-environment": (
        awaiting('import("node:process").then((process) => process.env.PATH)'),
        403,
        NO_IMPORT,
    ),
    "subprocess": (
        awaiting('import("node:child_process").then((all) => all.execSync("id"))'),
        403,
        NO_IMPORT,
    ),
    "loops-in-template": (trying("while (true)"), 504, "took longer than 1500 ms"),
    "loops-at-top": (
        module("return <p>it worked</p>;", top="while (true);"),
        504,
        "took longer than 1500 ms to load",
    ),
    "memory": (
        trying("const held = []; while (true) held.push(new Array(1e6).fill(1.5))"),
        500,
        "most likely for lack of memory",
    ),
    "buffers": (
        trying("const held = []; while (true) held.push(new Uint8Array(5e8))"),
        500,
        "allocation failed",
    ),
    "syntax": (b"export class Try extends Card { static", 406, "try-syntax.tsx"),
    "nul": (GOOD + b'export const nul = "\0";\n', 406, "try-nul.tsx has a NUL character"),
    "nested": (
        GOOD + b"export const a = " + b"(" * 5_000 + b"1" + b")" * 5_000 + b";\n",
        406,
        "try-nested.tsx nests too deeply",
    ),
    "missing-import": (
        b'import { gone } from "./gone.tsx";\nconsole.log(gone);\n' + GOOD,
        404,
        "http://ada.localhost:4201/gone.tsx",
    ),
    "missing-export": (
        b'import { nothing } from "./good.tsx";\nconsole.log(nothing);\n' + GOOD,
        422,
        "nothing",
    ),
    "throws-at-top": (
        module("return <p>it worked</p>;", top='throw new Error("not today");'),
        500,
        "not today",
    ),
    "throws-nonsense": (trying("throw { toString() { throw this } }"), 500, "can't be shown"),
    "not-a-card": (b"export class Try {}\n", 422, "not a class that extends Card"),
}
GOOD_CARDS = ("aaa", "mmm", "zzz")


def test_a_card_that_breaks_a_limit_fails_alone_in_its_batch(
    site: Any, web: Web, sent: list[tuple[str, Any]]
) -> None:
    files = {"good.tsx": GOOD, "index.json": make.card("./good", "Try", title="index")}
    for name in GOOD_CARDS:
        files[f"{name}.json"] = make.card("./good", "Try", title=name)
    for name, (source, _, _) in BAD.items():
        files[f"try-{name}.tsx"] = source
        files[f"{name}.json"] = make.card(f"./try-{name}", "Try", title=name)
    make.publish(site(files), URL)
    ran = work_off(sent)
    assert ran == 1

    cards = index_of(URL)
    assert set(cards) == {*GOOD_CARDS, *BAD, "index"}
    for name in (*GOOD_CARDS, "index"):
        assert cards[name].error is None, (name, cards[name].error)
        assert cards[name].html["isolated"] == f"<p>good {name}</p>"
    wrong = {}
    for name, (_, status, says) in BAD.items():
        error = cards[name].error
        if name == "memory" and error and error["status"] == 504:
            continue  # On a busy machine the time limit may be reached before the memory limit.
        if not error or error["status"] != status or says not in error["message"]:
            wrong[name] = error or cards[name].html
    assert not wrong, json.dumps(wrong, indent=1)

    for name in (*GOOD_CARDS, *BAD):
        page = web.get(URL + name, "text/html")
        assert page.status == (500 if name in BAD else 200), name
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        if name in BAD:
            assert "This page could not be rendered" in page.text
            for part in (BAD[name][2], "at ", "/_at/", "http://", "Error:"):
                assert part not in page.text.split("<body>")[1], (name, page.text)


def test_text_that_databases_or_parsers_refuse_fails_only_its_own_card(
    site: Any, web: Web, sent: list[tuple[str, Any]]
) -> None:
    def raw(attributes: str, relationships: str = "{}", module: str = "./good") -> bytes:
        adopts = f'{{"adoptsFrom": {{"module": "{module}", "name": "Try"}}}}'
        return (
            f'{{"data": {{"type": "card", "attributes": {attributes}, "relationships": '
            f'{relationships}, "meta": {adopts}}}}}'
        ).encode()

    def links(*urls: str) -> str:
        return json.dumps({f"all.{i}": {"links": {"self": url}} for i, url in enumerate(urls)})

    deep = "[" * 900 + "]" * 900
    shown = {
        "nul": (raw(r'{"title": "a\u0000b"}'), "<p>good a\ufffdb</p>"),
        "half": (raw(r'{"title": "a\ud800b"}'), "<p>good a\ufffdb</p>"),
        "links": (
            raw(
                '{"title": "two"}',
                links("http://[", "http://世/x", "http://a b/x", "./\ud800", "//", "x" * 100_000,
                      "./notjson", "./deep", "./nan", "http://localhost:1/elsewhere",
                      "file:///etc/hostname"),
            ),
            "<p>good two</p>",
        ),
    }  # fmt: skip
    wrong = {
        "module-url": (raw("{}", module="http://["), "is not a module"),
        "module-host": (
            raw("{}", module="http://127.0.0.1:1/x.tsx"),
            "http://127.0.0.1:1/x.tsx is not in a public realm of this server",
        ),
        "zzzz": (
            make.card("./forge", "Try", title="forged"),
            "Cannot assign to read only property",
        ),
        "wordy": (
            make.card("./wordy", "Try", title="wordy"),
            "Cannot assign to read only property",
        ),
        "large": (
            make.card("./large", "Try", title="large"),
            "bytes; the limit is 8000000",
        ),
        "beyond": (raw('{"title": "one", "size": 1e999}'), "a number that JavaScript can't hold"),
        "deep": (raw(f'{{"title": {deep}}}'), "nests deeper than 100 levels"),
        "deep-links": (
            raw("{}", '{"a": ' * 900 + "{}" + "}" * 900),
            "nests deeper than 100 levels",
        ),
        "nan": (raw('{"title": NaN}'), "nan.json:1:"),
        "notjson": (b"{", "notjson.json:1:2: is not JSON"),
    }
    files = {
        "good.tsx": GOOD,
        "forge.tsx": module("return <p/>;", top="Object.fromEntries = () => ({ isolated: 5 });"),
        "wordy.tsx": module("return <p/>;", top=WORDY),
        "large.tsx": module('return <p>{"x".repeat(9e6)}</p>;'),
        "text.json": b'"text"',
        "zzz.json": make.card("./good", "Try", title="last"),
    }
    files |= {f"{name}.json": data for name, (data, _) in (shown | wrong).items()}
    make.publish(site(files), URL)
    ran = work_off(sent)
    assert ran == 1

    cards = index_of(URL)
    assert cards.keys() == {*shown, *wrong, "zzz"}
    for name, (_, html) in shown.items():
        assert cards[name].error is None, (name, cards[name].error)
        assert cards[name].html["isolated"] == html
        assert web.get(URL + name, "text/html").status == 200
    for name, (_, says) in wrong.items():
        assert says in cards[name].error["message"], (name, cards[name].error)


def test_a_reference_to_an_impossible_path_fails_only_its_own_card(
    site: Any, web: Web, sent: list[tuple[str, Any]]
) -> None:
    """No file can have one of these paths. If a worker requested such a path from a replica, the
    replica would return other content or no answer."""
    away = {
        "nul": "./%00",
        "up": "./%2e%2e/%2e%2e/%2e%2e/base/mod.ts",
        "alive": "./%2e%2e/%2e%2e/_alive",
        "empty": "./%2f/x",
        "long": f"./{'x' * 3_900}",
        "star": "./*",
    }
    files = {"good.tsx": GOOD, "zzz.json": make.card("./good", "Try", title="last")}
    for name, reference in away.items():
        links = {"all.0": reference}
        files[f"links-{name}.json"] = make.card("./good", "Try", links, title=name)
        files[f"is-{name}.json"] = make.card(reference, "Try", title=name)
        files[f"{name}.tsx"] = module("return <p/>;", top=f'import "{reference}";')
        files[f"imports-{name}.json"] = make.card(f"./{name}", "Try", title=name)
    make.publish(site(files), URL)
    work_off(sent)
    cards = index_of(URL)
    assert cards["zzz"].html["isolated"] == "<p>good last</p>"
    for name in away:
        assert cards[f"links-{name}"].html["isolated"] == f"<p>good {name}</p>"
        # JavaScript resolves `%2e%2e` in an import like `..`, so the card `imports-up` imports
        # another path. The test doesn't check this card.
        leads = ["is-up"] if name == "up" else [f"is-{name}", f"imports-{name}"]
        for wrong in leads:
            assert cards[wrong].error["status"] in (403, 404, 500), (wrong, cards[wrong].error)


@pytest.mark.parametrize(
    "attributes",
    [None, [], {"iconURL": "http://["}, {"stylesheet": 5}, {"name": {"toString": 1}}],
)
def test_cards_are_rendered_even_if_realm_json_is_invalid(
    attributes: Any, site: Any, web: Web, sent: list[tuple[str, Any]]
) -> None:
    adopts = {"adoptsFrom": {"module": "@realm/base", "name": "RealmConfig"}}
    said = json.dumps({"data": {"type": "card", "attributes": attributes, "meta": adopts}})
    files = {"good.tsx": GOOD, "realm.json": said.encode()}
    make.publish(site({**files, "a.json": make.card("./good", "Try", title="a")}), URL)
    work_off(sent)
    card = index_of(URL)["a"]
    assert card.error is None, card.error
    assert card.html["isolated"] == "<p>good a</p>"


def test_large_cards_get_a_page_or_an_error_and_do_not_affect_others(
    site: Any, web: Web, sent: list[tuple[str, Any]], settings: Settings
) -> None:
    settings.REALM_RENDER_SECONDS = 10
    many = 5_000
    links = {f"all.{i}": {"links": {"self": f"./{('good', 'gone')[i % 2]}"}} for i in range(many)}
    adopts = {"adoptsFrom": {"module": "./good", "name": "Try"}}
    document = {"data": {"type": "card", "attributes": {}, "relationships": links, "meta": adopts}}
    files = {
        "good.tsx": module("return <p>{card.title.length} {card.all.length}</p>;"),
        "bad.tsx": module("return <p/>;", top='throw new Error("not today");'),
        "good.json": make.card("./good", "Try", title="four"),
        "large.json": make.card("./good", "Try", title="x" * (512 * 1024 - 200)),
        "links.json": json.dumps(document).encode(),
        "circle.json": make.card("./m0", "M0", title="round"),
        "missing.json": make.card("./nowhere", "Try", title="lost"),
        "misspelt.json": make.card("./good", "Try", titel="lost"),
    }
    for i in range(50):
        files[f"m{i}.tsx"] = f"""\
import {{ Card, linksTo, string }} from "@realm/base";
import {{ M{(i + 1) % 50} as Next }} from "./m{(i + 1) % 50}";
export class M{i} extends Card {{
  static fields = {{ title: string(), next: linksTo(() => Next) }};
  static isolated = this.template(({{ card }}) => <p>{{card.title}}</p>);
}}
""".encode()
    same = [f"same/{i}" for i in range(40)]
    files |= {f"{name}.json": make.card("../bad", "Try", title=name) for name in same}
    make.publish(site(files), URL)
    work_off(sent)

    cards = index_of(URL)
    assert len(cards) == 6 + len(same)
    shown = {
        "good": "<p>4 0</p>",
        "large": f"<p>{512 * 1024 - 200} 0</p>",
        "links": f"<p>0 {many // 2}</p>",
        "circle": "<p>round</p>",
    }
    for name, html in shown.items():
        assert cards[name].error is None, (name, cards[name].error)
        assert cards[name].html["isolated"] == html, name
    assert cards["missing"].error["status"] == 404
    assert "nowhere" in cards["missing"].error["message"]
    assert cards["misspelt"].error["field"] == "titel"
    assert "did you mean title?" in cards["misspelt"].error["message"]
    for name in same:
        error = cards[name].error
        assert (error["status"], error["message"]) == (500, "not today"), name
        assert (error["card"], error["module"]) == (f"{URL}{name}", f"{URL}bad.tsx")
