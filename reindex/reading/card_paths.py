"""Converts between the path of a card and the path of its file, which ends in `.json`."""

CARD_EXTENSION = ".json"
#: The file name of a realm's front page, and of a folder's page.
FRONT_PAGE = "index.json"
#: The file that describes a realm.
REALM_CONFIG = "realm.json"


def is_card_file(path: str) -> bool:
    """Returns whether the file at `path` may hold a card: its name ends in `.json`."""
    return path.endswith(CARD_EXTENSION)


def card_of(file: str) -> str:
    """Returns the path or URL of the card that a file holds."""
    return file.removesuffix(CARD_EXTENSION)


def file_of(card: str) -> str:
    """Returns the path or URL of the file that holds a card."""
    return f"{card}{CARD_EXTENSION}"


def named_card(path: str) -> str:
    """Returns the path of the card that visitors see at `path`. At a folder's path, visitors see
    the card `index` of the folder."""
    return f"{path}index" if path.endswith("/") or not path else path
