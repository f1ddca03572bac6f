"""Describes card types and their fields, and finds where a search document stores a field.

A search document has the searchable values of one card's fields, as JSON.
"""

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

#: The fields of a card type, keyed by name. The name of a type, such as `number`, describes a plain
#: field. A dictionary of fields describes a field that holds a card or a link to a card. For a
#: link, the dictionary also has the key `id` with the value `id`. A list describes a field with
#: several values, and its only item describes each value.
Fields: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class CardType:
    """A card type and its fields. `keys` has the type's own key, followed by the keys of the types
    that it extends. A key is the URL of a module without its extension, a slash, and the name of an
    export, as in `http://example.com/blog/post/Post`."""

    keys: tuple[str, ...]
    fields: Fields


@dataclass(frozen=True)
class FieldPlace:
    """Where a search document stores the values of a field, and the type of the values. `steps` is
    the path to the values. Each step has a key, and True if the key's value is a list. The `type`
    of contained cards is `card`. The `type` of linked cards is `link`. `fields` has the names of
    the cards' fields."""

    steps: tuple[tuple[str, bool], ...]
    type: str
    fields: tuple[str, ...] = ()

    @property
    def many(self) -> bool:
        return any(many for _, many in self.steps)

    @property
    def plain(self) -> bool:
        """Whether the field has one value, of a known type, at the top level of the search
        document."""
        return len(self.steps) == 1 and not self.many and self.type != "any"

    def document(self, value: Any) -> Any:
        """Returns the smallest search document that has `value` in this field."""
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
    """Finds a field of a card type. `names` has the parts of the field's path: for `author.name`,
    they are `author` and `name`. Returns None if the type has no such field."""
    steps: list[tuple[str, bool]] = []
    shape: Any = fields
    for name in names:
        # The content of a field with the type `any` is unknown, so every name in it is accepted.
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
    """Returns the fields that the definition of a card type lists. A computed field gets the type
    `any`, because its values may have any type. A field that holds or links to a card also gets the
    type `any`, because the definition doesn't list that card's fields."""
    fields: Fields = {}
    for name, field in definition["fields"].items():
        plain = isinstance(field["type"], str) and not field["computed"]
        one = field["type"] if plain else "any"
        fields[name] = [one] if field["kind"].endswith("Many") else one
    return fields
