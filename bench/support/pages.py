"""Runs the peers of the reindex benchmark: Chromium, Jinja2 and Astro. The benchmark compares their
speed with that of the realm server.

For each card, a peer makes one page, with a heading, Markdown, a list of tags, and two linked
cards. The realm server does more for a card. It also renders the card as a tile, as a link and in
other formats, and makes a search document.

For each peer there is a function that returns a context manager. The context manager prepares the
peer, and yields a function that makes all pages and returns the number of pages per second. The
preparation isn't timed. If the peer isn't installed, the context manager raises Missing.
"""

import asyncio
import html
import json
import mimetypes
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from bench.support.comparing import WrongBytes
from bench.support.peers import Missing

#: A card's fields. The card links to two cards. The keys `next` and `far` hold the fields of these
#: cards.
Card: TypeAlias = Mapping[str, Any]
MakePages: TypeAlias = Callable[[], float]

ROOT = Path(__file__).parents[2]
#: The number of tabs that are open in Chromium at a time.
TABS = os.cpu_count() or 1
#: The npm packages that the Astro site needs.
PACKAGES = ("astro@5", "markdown-it@14")


def _check(page: str, card: Card) -> None:
    """Raises WrongBytes unless the page shows the card and the titles of its linked cards."""
    linked = (card["next"]["title"], card["far"]["title"], card["edition"])
    for text in (card["title"].upper(), "<strong>text</strong>", *linked):
        if text not in html.unescape(page):
            raise WrongBytes(f"{text!r} is missing in {page[:300]!r}")


# --- Jinja2 ------------------------------------------------------------------------------------

_JINJA = """\
<!doctype html><title>{{ card.title }}</title>
<article><h1>{{ card.title | upper }}</h1><p>{{ card.edition }} of rank {{ card.rank }}</p>
{{ markdown(card.body) }}<ul>{% for tag in card.tags %}<li>{{ tag }}</li>{% endfor %}</ul>
<section><b>{{ card.next.title }}</b> {{ card.next.edition }}</section>
<span>{{ card.far.title }}</span></article>
"""


@contextmanager
def jinja(cards: Sequence[Card]) -> Iterator[MakePages]:
    """Prepares Jinja2. The yielded function renders all cards in this process, and keeps the pages
    in memory."""
    try:
        import jinja2
    except ImportError as error:
        raise Missing("Jinja2", "pip install Jinja2") from error
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    parser = MarkdownIt()
    template = jinja2.Environment(autoescape=True).from_string(_JINJA)

    def markdown(text: str) -> Markup:
        return Markup(parser.render(text))

    def make() -> float:
        at = time.perf_counter()
        pages = [template.render(card=card, markdown=markdown) for card in cards]
        taken = time.perf_counter() - at
        _check(pages[-1], cards[-1])
        return len(pages) / taken

    yield make


# --- Chromium ----------------------------------------------------------------------------------

_APP = b"""\
<!doctype html><title>A card</title><div id="app"></div>
<script type="module">
import { h, render } from "/preact.mjs";
import MarkdownIt from "/markdown-it.mjs";
const card = await (await fetch(location.pathname + ".json")).json();
document.title = card.title;
const body = { __html: new MarkdownIt().render(card.body) };
render(h("article", null,
  h("h1", null, card.title.toUpperCase()), h("p", null, card.edition, " of rank ", card.rank),
  h("div", { dangerouslySetInnerHTML: body }),
  h("ul", null, card.tags.map((tag) => h("li", null, tag))),
  h("section", null, h("b", null, card.next.title), " ", card.next.edition),
  h("span", null, card.far.title)), document.getElementById("app"));
</script>
"""


@contextmanager
def chromium(cards: Sequence[Card]) -> Iterator[MakePages]:
    """Starts the web server `_app`. The yielded function starts Chromium, opens each card's page in
    a tab, and checks the page's HTML. In the tab, JavaScript renders the card with preact. TABS
    tabs are open at a time. The start of Chromium isn't timed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise Missing("Chromium", "apt-get install --no-install-recommends chromium")
    try:
        from playwright.async_api import async_playwright
    except ImportError as error:
        raise Missing("playwright", "pip install playwright") from error

    async def pages(port: int) -> float:
        async with async_playwright() as started:
            browser = await started.chromium.launch(executable_path=program, args=["--no-sandbox"])
            context = await browser.new_context()
            waiting = list(enumerate(cards))

            async def tab() -> None:
                while waiting:
                    number, card = waiting.pop()
                    page = await context.new_page()
                    await page.goto(f"http://127.0.0.1:{port}/card/{number}")
                    await page.wait_for_selector("article")
                    _check(await page.content(), card)
                    await page.close()

            at = time.perf_counter()
            await asyncio.gather(*(tab() for _ in range(TABS)))
            taken = time.perf_counter() - at
            await browser.close()
            return len(cards) / taken

    with _app(cards) as port:
        yield lambda: asyncio.run(pages(port))


@contextmanager
def _app(cards: Sequence[Card]) -> Iterator[int]:
    """Runs a web server, and yields its port. The server has a page for each card, and the card's
    fields as JSON. All pages have the same HTML, with JavaScript that renders the card."""
    packages = ROOT / "node_modules"
    files = {
        "/preact.mjs": (packages / "preact/dist/preact.mjs").read_bytes(),
        "/markdown-it.mjs": (
            packages / "markdown-it/dist/browser/markdown-it.esm.min.mjs"
        ).read_bytes(),
    }
    for number, card in enumerate(cards):
        files[f"/card/{number}"] = _APP
        files[f"/card/{number}.json"] = json.dumps(card).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            kind = mimetypes.guess_type(self.path)[0] or "text/html"
            self.send_header("Content-Type", "text/javascript" if ".mjs" in self.path else kind)
            self.send_header("Cache-Control", "max-age=3600")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


# --- Astro -------------------------------------------------------------------------------------

_ASTRO = """\
---
import MarkdownIt from "markdown-it";
import cards from "../../cards.json";
export function getStaticPaths() {
  // Astro makes no folder for a page named 404 or 500. So the name isn't just the number.
  return cards.map((card, number) => ({ params: { card: `card-${number}` }, props: { card } }));
}
const { card } = Astro.props;
const body = new MarkdownIt().render(card.body);
---
<html><head><title>{card.title}</title></head><body><article>
  <h1>{card.title.toUpperCase()}</h1><p>{card.edition} of rank {card.rank}</p>
  <Fragment set:html={body} /><ul>{card.tags.map((tag) => <li>{tag}</li>)}</ul>
  <section><b>{card.next.title}</b> {card.next.edition}</section><span>{card.far.title}</span>
</article></body></html>
"""


@contextmanager
def astro(cards: Sequence[Card], folder: Path) -> Iterator[MakePages]:
    """Installs Astro with npm, and prepares a site with one page for each card. The yielded
    function builds the site, and times the build."""
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("Astro", "apt-get install npm")
    site = folder / "astro"
    made = {"package.json": '{"type": "module", "private": true}', "cards.json": json.dumps(cards),
            "src/pages/[card].astro": _ASTRO}  # fmt: skip
    for name, text in made.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    install = (npm, "install", "--no-audit", "--no-fund", "--no-update-notifier", *PACKAGES)
    done = subprocess.run(install, cwd=site, capture_output=True, text=True)
    if done.returncode:
        raise Missing("Astro", f"npm install failed: {done.stderr.strip()[-200:]}")

    def make() -> float:
        shutil.rmtree(site / "dist", ignore_errors=True)
        environment = {**os.environ, "ASTRO_TELEMETRY_DISABLED": "1", "CI": "true"}
        at = time.perf_counter()
        built = subprocess.run(
            (site / "node_modules/.bin/astro", "build"),
            cwd=site, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        taken = time.perf_counter() - at
        if built.returncode:
            raise WrongBytes(f"astro build failed: {(built.stderr or built.stdout)[-500:]}")
        pages = list((site / "dist").glob("*/index.html"))
        if len(pages) != len(cards):
            raise WrongBytes(f"astro build made {len(pages)} of {len(cards)} pages")
        _check((site / f"dist/card-{len(cards) - 1}/index.html").read_text(), cards[-1])
        return len(cards) / taken

    yield make
    shutil.rmtree(site)
