"""Converts between the path of a card and the path of its file, which ends in `.json`."""

CARD_EXTENSION = ".json"
#: The file name of a realm's front page, and of a folder's page.
FRONT_PAGE = "index.json"
#: The file that describes a realm.
REALM_CONFIG = "realm.json"


def is_card_file(path: str) -> bool:
    """Whether a file's name allows it to hold a card."""
    return path.endswith(CARD_EXTENSION)


def card_of(file: str) -> str:
    """The path or URL of the card in a file."""
    return file.removesuffix(CARD_EXTENSION)


def file_of(card: str) -> str:
    """The path or URL of the file that holds a card."""
    return f"{card}{CARD_EXTENSION}"


def named_card(path: str) -> str:
    """The path of the card at a path. The path of a folder leads to its `index`."""
    return f"{path}index" if path.endswith("/") or not path else path
