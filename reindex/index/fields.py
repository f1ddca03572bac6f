"""Card types and their fields, as an index knows them, and where a search document has a field."""

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

#: The fields of a card type by name: a type, an object of fields, or a list of one of these.
Fields: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class CardType:
    """A type of cards in an index, with its fields. `keys` are its own key and then the keys of the
    types that it adopts from."""

    keys: tuple[str, ...]
    fields: Fields


@dataclass(frozen=True)
class FieldPlace:
    """The path of a field's values in a search document, and their type."""

    steps: tuple[tuple[str, bool], ...]
    type: str
    fields: tuple[str, ...] = ()

    @property
    def many(self) -> bool:
        return any(many for _, many in self.steps)

    @property
    def plain(self) -> bool:
        """Whether there is a single value, in the document itself."""
        return len(self.steps) == 1 and not self.many and self.type != "any"

    def document(self, value: Any) -> Any:
        """The smallest document that has the value at this path."""
        for name, many in reversed(self.steps):
            value = {name: [value] if many else value}
        return value

    @property
    def jsonpath(self) -> str:
        return "$" + "".join(f".{json.dumps(name)}" for name, _ in self.steps)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.steps]


def place_of(fields: Fields, names: list[str]) -> FieldPlace | None:
    """The place of a field, given by its path of names, among a card type's fields."""
    steps: list[tuple[str, bool]] = []
    shape: Any = fields
    for name in names:
        # The content of an `any` field is unknown, so any further name is accepted.
        if shape != "any":
            if not isinstance(shape, dict) or name not in shape:
                return None
            shape = shape[name]
        many = isinstance(shape, list)
        steps.append((name, many))
        if many:
            shape = shape[0]
    if isinstance(shape, dict):
        return FieldPlace(tuple(steps), "link" if shape.get("id") == "id" else "card", tuple(shape))
    return FieldPlace(tuple(steps), shape)


def fields_of_definition(definition: dict[str, Any]) -> Fields:
    """The fields of a definition. A field that is a card becomes `any`, because the definition only
    names its type."""
    fields: Fields = {}
    for name, field in definition["fields"].items():
        plain = isinstance(field["type"], str) and not field["computed"]
        one = field["type"] if plain else "any"
        fields[name] = [one] if field["kind"].endswith("Many") else one
    return fields
