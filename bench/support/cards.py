"""Makes the realm that the reindex benchmark publishes: modules with card types, and linked
cards."""

import argparse
import json
from typing import Any


def files(cards: int, modules: int) -> dict[str, bytes]:
    """Returns the realm's files by path: its modules, some of which import others, and its cards,
    which link to other cards."""
    made = {"realm.json": _document("@realm/base", "RealmConfig", {"name": "Bench"}, {})}
    made["common.ts"] = b"export const shout = (text: string) => text.toUpperCase();\n"
    for number in range(modules):
        made[f"type{number}.tsx"] = module(number)
    options = argparse.Namespace(cards=cards, modules=modules)
    for number in range(cards):
        made[f"card/{number}.json"] = card(number, options, "edition 0")
    return made


def card(number: int, options: argparse.Namespace, edition: str) -> bytes:
    """Returns the JSON file of a card. The card links to two cards, and its field `edition` has the
    value of the argument `edition`."""
    return _document(
        f"../type{number % options.modules}",
        "Note",
        {
            "title": f"Note {number}",
            "edition": edition,
            "body": f"Some **text** of note {number}.\n\n" + "It goes on for a while. " * 12,
            "tags": [f"tag{number % 7}", f"tag{number % 11}"],
            "rank": number,
        },
        {"next": f"./{(number + 1) % options.cards}", "far": f"./{(number * 7) % options.cards}"},
    )


def fields_with_links(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the fields of every card. In place of each link, a card has the fields of the linked
    card."""
    made = [json.loads(card(n, options, "edition 0"))["data"] for n in range(options.cards)]
    fields = [each["attributes"] for each in made]
    return [
        {
            **each["attributes"],
            **{
                name: fields[int(link["links"]["self"].removeprefix("./"))]
                for name, link in each["relationships"].items()
            },
        }
        for each in made
    ]


def users(number: int, options: argparse.Namespace) -> list[int]:
    """Returns the numbers of the cards that depend on the module with this number. These are the
    cards with a type in this module, and the cards with a type in a module that imports this module
    directly or indirectly."""
    last = number - number % 4 + 3
    return [n for n in range(options.cards) if number <= n % options.modules <= last]


def module(number: int, edition: str = "rank") -> bytes:
    """Returns the source of a module with one card type. The pages of all cards of this type show
    the parameter's value `edition` as text. Three of four modules import the module with the
    preceding number."""
    uses = f'import {{ label }} from "./type{number - 1}.tsx";' if number % 4 else ""
    return f"""\
import {{ Card, containsMany, Embed, linksTo, Markdown, markdown, number, string }}
  from "@realm/base";
import {{ shout }} from "./common.ts";
{uses}
export const label = "type {number}";
export class Note extends Card {{
  static displayName = "Note {number}";
  static fields = {{
    title: string(), edition: string(), body: markdown(), tags: containsMany(string()),
    rank: number(), next: linksTo(() => Card), far: linksTo(() => Card),
  }};
  static isolated = ({{ card }}) => (
    <article>
      <h1>{{shout(card.title)}}</h1><p>{{card.edition}} of {edition} {{card.rank}}</p>
      <Markdown text={{card.body}} />
      <ul>{{card.tags.map((tag) => <li>{{tag}}</li>)}}</ul>
      <Embed card={{card.next}} /><Embed card={{card.far}} format="atom" />
    </article>
  );
  static embedded = ({{ card }}) => <section><b>{{card.title}}</b> {{card.edition}}</section>;
}}
""".replace("import { label } from", f"import {{ label as before{number} }} from").encode()


def _document(module: str, name: str, attributes: dict[str, Any], links: dict[str, str]) -> bytes:
    return json.dumps({
        "data": {
            "type": "card",
            "attributes": attributes,
            "relationships": {key: {"links": {"self": link}} for key, link in links.items()},
            "meta": {"adoptsFrom": {"module": module, "name": name}},
        }
    }).encode()  # fmt: skip
