"""Modules of cards that try what card code may or can't do."""

URL = "http://ada.localhost:4201/"


def module(template: str, top: str = "") -> bytes:
    """A card module whose template shows what an expression comes to."""
    return f"""\
import {{ Card, linksToMany, number, string }} from "@realm/base";
{top}
export class Try extends Card {{
  static fields = {{ title: string(), size: number(), all: linksToMany(() => Card) }};
  static isolated = ({{ card }}) => {{ {template} }};
}}
""".encode()


def trying(statement: str) -> bytes:
    """A module whose template runs a statement, which throws if all is well."""
    return module(f"{statement}; return <p>it worked</p>;")


def awaiting(expression: str) -> bytes:
    """A module that waits for something while it is loaded."""
    return module("return <p>it worked: {got}</p>;", top=f"const got = String(await {expression});")


GOOD = module("return <p>good {card.title}</p>;")
