"""Tests that each card gets a page or an error, even if the process that renders it hangs, ends or
is replaced."""

import itertools
from typing import Any

import pytest

from reindex.prerender import sandbox
from reindex.prerender.cards import MAX_FRUITLESS
from reindex.prerender.sandbox import SandboxDied
from tests.support import make
from tests.support.data.tries import GOOD, URL, module, trying
from tests.support.rendering import index_of, work_off
from tests.support.web import Web


def test_a_card_with_a_chain_of_hanging_modules_ends_with_an_error(
    site: Any, web: Web, sent: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, passes = sandbox.run, itertools.count()

    def run(task: Any, process: Any, *arguments: Any) -> Any:
        if task["cards"][0]["doc"]["data"]["attributes"]["title"] != "endless":
            return real(task, process, *arguments)
        process.end()
        return {f"http://localhost:4201/ada/site/hang?{next(passes)}": {"status": 504}}

    monkeypatch.setattr(sandbox, "run", run)
    files = {"good.tsx": GOOD, "b.json": make.card("./good", "Try", title="b")}
    make.publish(site({**files, "a.json": make.card("./good", "Try", title="endless")}), URL)
    work_off(sent)
    cards = index_of(URL)
    assert cards["b"].html["isolated"] == "<p>good b</p>"
    assert "it loads too many modules that hang" in cards["a"].error["message"]
    assert next(passes) == MAX_FRUITLESS


def test_a_card_rendered_after_a_crash_still_shows_linked_cards(
    site: Any, web: Web, sent: list[tuple[str, Any]]
) -> None:
    """After a crash, other processes render the remaining cards. These cards link to cards that an
    earlier process has rendered, and to cards that a later process will render."""
    linking = module("return <p>{card.title}: {card.all.map((it) => it.title).join()}</p>;")
    ends = trying("const held = []; while (true) held.push(new Array(1e6).fill(1.5))")
    files = {"good.tsx": linking, "ends.tsx": ends, "loops.tsx": trying("while (true)")}
    ring = ("aa", "bb", "cc", "dd")
    for name in ring:
        links = {f"all.{at}": f"./{other}" for at, other in enumerate(ring)}
        files[f"{name}.json"] = make.card("./good", "Try", links, title=name)
    for name in ("ab", "cd"):
        files[f"{name}.json"] = make.card("./ends", "Try", title=name)
    files["bc.json"] = make.card("./loops", "Try", title="bc")
    make.publish(site(files), URL)
    work_off(sent)
    cards = index_of(URL)
    assert {name for name, card in cards.items() if card.error} == {"ab", "bc", "cd"}
    for name in ring:
        assert f"<p>{name}: aa,bb,cc,dd</p>" in cards[name].html["isolated"]


def test_a_card_shows_a_long_chain_of_links_through_other_realms(
    site: Any, web: Web, owner: Any, sent: list[tuple[str, Any]]
) -> None:
    """A process may load code only of the realms that it was started for. If the chain of links
    reaches a further realm, another process, which may also load code of that realm, renders the
    card again."""
    chain = b"""\
import { Card, linksTo, string } from "@realm/base";
const walk = (card) => card ? `${card.title} ${walk(card.next)}` : "";
export class Chain extends Card {
  static fields = { title: string(), next: linksTo(() => Card) };
  static isolated = ({ card }) => <p>{walk(card)}</p>;
}
"""
    middle, far = (f"http://localhost:4201/ada/{name}/" for name in ("middle", "far"))

    def card(title: str, next_: str) -> bytes:
        return make.card("./chain", "Chain", {"next": next_}, title=title)

    numbers = {f"{i}.json": card(str(i), f"./{i + 1}") for i in range(6)}
    make.source(middle, owner, {"chain.tsx": chain, **numbers, "6.json": card("6", f"{far}end")})
    make.source(far, owner, {"chain.tsx": chain, "end.json": card("end", "./nowhere")})
    files = {"chain.tsx": chain, "first.json": card("first", f"{middle}0")}
    make.publish(site({**files, "second.json": card("second", "./first")}), URL)
    work_off(sent)
    cards = index_of(URL)
    assert cards["first"].html["isolated"] == "<p>first 0 1 2 3 4 5 6 end </p>"
    assert cards["second"].html["isolated"] == "<p>second first 0 1 2 3 4 5 6 end </p>"


def test_a_card_whose_process_was_killed_is_rendered_by_another_process(
    site: Any, web: Web, sent: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card gets an error only after two processes have died while they rendered the card
    alone."""
    deaths = iter([SandboxDied("killed")])
    real = sandbox.run

    def run(*arguments: Any, **named: Any) -> Any:
        if death := next(deaths, None):
            arguments[1].end()
            raise death
        return real(*arguments, **named)

    monkeypatch.setattr(sandbox, "run", run)
    make.publish(site({"good.tsx": GOOD, "a.json": make.card("./good", "Try", title="a")}), URL)
    work_off(sent)
    assert index_of(URL)["a"].html["isolated"] == "<p>good a</p>"
