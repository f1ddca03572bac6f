"""Makes card modules that try forbidden and permitted actions in the sandbox, the restricted Deno
process that runs the code of card modules."""

URL = "http://ada.localhost:4201/"


def module(template: str, top: str = "") -> bytes:
    """Returns a card module. `template` is the body of the function that renders the card's page.
    `top` is the code before the class."""
    return f"""\
import {{ Card, linksToMany, number, string }} from "@realm/base";
{top}
export class Try extends Card {{
  static fields = {{ title: string(), size: number(), all: linksToMany(() => Card) }};
  static isolated = ({{ card }}) => {{ {template} }};
}}
""".encode()


def trying(statement: str) -> bytes:
    """Returns a card module that runs a statement when the card's page is rendered. The statement
    must fail, because the sandbox forbids or interrupts it."""
    return module(f"{statement}; return <p>it worked</p>;")


def awaiting(expression: str) -> bytes:
    """Returns a card module that awaits an expression while the module is loaded. If the sandbox
    permits the expression, the card's page shows its value."""
    return module("return <p>it worked: {got}</p>;", top=f"const got = String(await {expression});")


GOOD = module("return <p>good {card.title}</p>;")
