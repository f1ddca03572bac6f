"""Checks texts from clients: whether Postgres can store a text, whether a text is a number, and
whether a text is allowed as a path."""

import re
import unicodedata

from notifications.channels import PAYLOAD_BUDGET

MAX_PATH_BYTES = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Characters that Postgres can't store: NUL, and halves of surrogate pairs.
_UNSTORABLE = re.compile("[\\x00\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Returns whether Postgres can store a text."""
    return _UNSTORABLE.search(text) is None


def made_storable(text: str) -> str:
    """Returns the text with U+FFFD in place of each character that Postgres can't store."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def has_control_character(text: str) -> bool:
    """Returns whether a text has an ASCII control character, such as NUL or a line break."""
    return _CONTROL.search(text) is not None


def check_encodable(text: str) -> str:
    """Returns the text. Raises ValueError if UTF-8 can't encode the text."""
    if _HALF.search(text):
        raise ValueError("half of a surrogate pair is not a character")
    return text


def check_storable(text: str) -> str:
    """Returns the text. Raises ValueError with the reason if Postgres can't store the text."""
    if "\x00" in text:
        raise ValueError("a NUL character can't be stored")
    return check_encodable(text)


def whole_number(text: str, digits: int = 18) -> int | None:
    """Parses a text of at most `digits` ASCII digits. Returns None for any other text. The default
    is 18 digits, because every number of 18 digits fits into a 64-bit integer of Postgres."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def composed(text: str) -> str:
    """Returns the text in Unicode's composed form, NFC. All paths are stored in this form. `é` can
    be written as one character, or as `e` and a combining accent. Both spellings look the same, so
    both must refer to the same file."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def top_folder(path: str) -> str:
    """Returns the topmost folder of a path, with its final slash. Returns an empty text for a file
    that is in no folder."""
    folder, slash, _ = path.partition("/")
    return folder + slash if slash else ""


def wrong_with_path(path: str, realm_url: str = "") -> str | None:
    """Returns why a path isn't allowed for a file of a realm, or None if the path is allowed."""
    segments = path.split("/")
    size = len(path.encode(errors="surrogatepass"))
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it starts with /"
    if size > MAX_PATH_BYTES or size + len(realm_url.encode()) + 1 > PAYLOAD_BUDGET:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    if has_control_character(path):
        return "it has a control character"
    if not is_storable(path):
        return "it is not valid UTF-8"
    if "*" in path:
        return "it has a *"
    if "" in segments:
        return "it has an empty segment"
    if "." in segments or ".." in segments:
        return "it has a segment that is . or .."
    if any(segment.startswith(":") for segment in segments):
        return "it has a segment that starts with :"
    return None
