"""Shortens causes. A cause is a text for people that says what raised a generation. It is stored
with every counter that a transaction raises, so its length is limited."""

from collections.abc import Collection
from itertools import islice

#: The longest cause. Unit: characters.
MAX_CAUSE = 500
#: How many causes of one transaction are named.
MOST_NAMED = 3


def cut(cause: str) -> str:
    """The cause, with at most MAX_CAUSE characters."""
    return cause if len(cause) <= MAX_CAUSE else f"{cause[: MAX_CAUSE - 1]}…"


def joined(causes: Collection[str]) -> str:
    """A text with the first causes and the number of the others."""
    named = ", ".join(islice(causes, MOST_NAMED))
    more = len(causes) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
