"""Converts between the path of a card and the path of its file. The file's path is the card's path
with `.json` at the end."""

CARD_EXTENSION = ".json"
#: The name of the file with the front page of a realm or the page of a folder.
FRONT_PAGE = "index.json"
#: The path of the file with a realm's settings, such as its name.
REALM_CONFIG = "realm.json"
#: The server generates a file at each URL that ends in one of these texts.
GENERATED = ("/robots.txt", "/sitemap.xml")


def is_card_file(path: str) -> bool:
    """Returns whether the file at `path` may hold a card, because its name ends in `.json`."""
    return path.endswith(CARD_EXTENSION)


def card_of(file: str) -> str:
    """Returns the path or URL of the card that a file holds."""
    return file.removesuffix(CARD_EXTENSION)


def file_of(card: str) -> str:
    """Returns the path or URL of the file that holds a card."""
    return f"{card}{CARD_EXTENSION}"


def named_card(path: str) -> str:
    """Returns the path of the card that visitors see at `path`. At the path of a folder, and at the
    empty path of the realm itself, they see the card `index` in the folder or realm."""
    return f"{path}index" if path.endswith("/") or not path else path
