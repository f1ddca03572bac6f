"""Makes the HTML document around a rendered card, and the server's own pages."""

from collections.abc import Mapping
from html import escape
from typing import Any

from reindex.index.shown import Page

_SHELL = """<!doctype html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{head}
</head>
<body>
{body}
</body>
</html>
"""

_NOTICE_STYLE = """<style>
:root { color-scheme: light dark; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center;
  font: 1.05rem/1.6 system-ui, sans-serif; }
main { max-width: 34rem; padding: 2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
p { margin: .25rem 0; opacity: .8; overflow-wrap: anywhere; }
a { color: inherit; }
.sign { font-size: clamp(4rem, 20vw, 7rem); font-weight: 200; line-height: 1; margin: 0 0 1rem;
  letter-spacing: -.04em; opacity: .35; }
.home { margin-top: 1.5rem; }
.home a { display: inline-block; padding: .4rem 1rem; border: 1px solid; border-radius: 2rem;
  text-decoration: none; }
.home a:focus-visible, .home a:hover { outline: 2px solid; outline-offset: 2px; }
</style>"""


def card(page: Page) -> str:
    """Returns a card's page. If every rendering of the card has failed, the card has no HTML, so
    the page is a notice."""
    if page.html is None:
        return _notice("This page could not be rendered", "Its author can see why.")
    head, body = page.html.get("head", ""), page.html.get("isolated", "")
    return _SHELL.format(lang=escape(page.html.get("lang", "en")), head=head, body=body)


def broken(error: Mapping[str, Any]) -> str:
    """Returns the page that tells a source realm's owner why a card could not be rendered."""
    causes = [str(cause) for cause in error.get("causes", [])]
    place = [f"{error['module']}, line {error['line']}"] if error.get("line") else []
    lines = [str(error.get("message", "")), *causes, *place]
    text = "<br>".join(escape(line) for line in lines)
    return _notice(str(error.get("title", "This card could not be rendered")), text)


def missing(realm_url: str) -> str:
    """Returns the server's 404 page for a URL in a realm."""
    home = f'<a href="{escape(realm_url)}">Back to the front page</a>'
    return _notice(
        "There is nothing at this address",
        f'The page may have moved, or it was never here.</p><p class="home">{home}',
        sign="404",
    )


def nowhere() -> str:
    """Returns the 404 page for a URL that lies in no realm."""
    return _notice("There is no site at this address", "Nothing is published here.", sign="404")


def preparing(realm_url: str) -> str:
    """Returns the notice for any page of a realm while the realm has no rendered pages yet."""
    return _notice("This site is being prepared", "Its pages will appear here in a moment.")


def source_realm(realm_url: str) -> str:
    """Returns the notice for a source realm that is not published."""
    return _notice(
        "This site is not published yet",
        f"The site's source is at {escape(realm_url)}. Its owner can log in to see the draft here.",
    )


def _notice(title: str, text: str, sign: str = "") -> str:
    above = f'<p class="sign" aria-hidden="true">{sign}</p>' if sign else ""
    return _SHELL.format(
        lang="en",
        head=f"<title>{escape(title)}</title>{_NOTICE_STYLE}",
        body=f"<main>{above}<h1>{escape(title)}</h1><p>{text}</p></main>",
    )
