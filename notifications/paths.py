"""The rules for paths of files, which notifications rely on."""

import re
import unicodedata

from notifications.channels import PAYLOAD_BUDGET

MAX_PATH_BYTES = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def composed(text: str) -> str:
    """A text with its characters composed (Unicode's NFC), as all paths are stored: `é` as one
    character and `e` with a combining accent look the same, so they name the same file."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def top_folder(path: str) -> str:
    """The topmost folder of a path, with its final slash; empty for a file at the top level."""
    folder, slash, _ = path.partition("/")
    return folder + slash if slash else ""


def wrong_with_path(path: str, realm_url: str = "") -> str | None:
    """The reason why no file of a realm may have a path; None if the path is allowed."""
    segments = path.split("/")
    size = len(path.encode(errors="surrogatepass"))
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it starts with /"
    if size > MAX_PATH_BYTES or size + len(realm_url.encode()) + 1 > PAYLOAD_BUDGET:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    if _CONTROL.search(path):
        return "it has a control character"
    if _SURROGATE.search(path):
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
