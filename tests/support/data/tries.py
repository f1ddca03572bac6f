"""Card modules that try forbidden and permitted actions in the sandbox."""

URL = "http://ada.localhost:4201/"


def module(template: str, top: str = "") -> bytes:
    """A card module whose template has this body, and which has the code `top` before its class."""
    return f"""\
import {{ Card, linksToMany, number, string }} from "@realm/base";
{top}
export class Try extends Card {{
  static fields = {{ title: string(), size: number(), all: linksToMany(() => Card) }};
  static isolated = ({{ card }}) => {{ {template} }};
}}
""".encode()


def trying(statement: str) -> bytes:
    """A module whose template runs a statement that the sandbox must make fail."""
    return module(f"{statement}; return <p>it worked</p>;")


def awaiting(expression: str) -> bytes:
    """A module that awaits an expression while it is loaded, and whose page shows the result."""
    return module("return <p>it worked: {got}</p>;", top=f"const got = String(await {expression});")


GOOD = module("return <p>good {card.title}</p>;")
