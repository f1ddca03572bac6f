"""Makes the first two cards of a realm that a user creates."""

import json
from typing import Any

from reindex.reading.card_paths import FRONT_PAGE, REALM_CONFIG


def seed_files(attributes: dict[str, Any]) -> dict[str, bytes]:
    """Returns two files. `realm.json` contains the realm's name and the URLs of its icon and
    background. `index.json` is the realm's front page."""
    config = {
        key: attributes[key] for key in ("name", "iconURL", "backgroundURL") if attributes.get(key)
    }
    return {
        REALM_CONFIG: _card("RealmConfig", config),
        FRONT_PAGE: _card("CardsIndex", {"title": attributes["name"]}),
    }


def _card(name: str, attributes: dict[str, Any]) -> bytes:
    document = {
        "data": {
            "type": "card",
            "attributes": attributes,
            "meta": {"adoptsFrom": {"module": "@realm/base", "name": name}},
        }
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
