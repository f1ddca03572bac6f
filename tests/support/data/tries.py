"""Makes card modules that try forbidden and permitted actions in the sandbox."""

URL = "http://ada.localhost:4201/"


def module(template: str, top: str = "") -> bytes:
    """Returns a card module. `template` is the body of the card's template; `top` is the code
    before the class."""
    return f"""\
import {{ Card, linksToMany, number, string }} from "@realm/base";
{top}
export class Try extends Card {{
  static fields = {{ title: string(), size: number(), all: linksToMany(() => Card) }};
  static isolated = ({{ card }}) => {{ {template} }};
}}
""".encode()


def trying(statement: str) -> bytes:
    """Returns a card module with a template that runs a statement. The sandbox must make the
    statement fail."""
    return module(f"{statement}; return <p>it worked</p>;")


def awaiting(expression: str) -> bytes:
    """Returns a card module that awaits an expression while the module is loaded. The card's page
    shows the value of the expression."""
    return module("return <p>it worked: {got}</p>;", top=f"const got = String(await {expression});")


GOOD = module("return <p>good {card.title}</p>;")
