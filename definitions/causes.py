"""Shortens causes. A cause is a text that tells people why a generation was raised. The cause is
stored with every counter that a transaction raises, so the cause's length is limited."""

from collections.abc import Collection
from itertools import islice

#: The longest cause. Unit: characters.
MAX_CAUSE = 500
#: The joined text of a transaction contains at most this many causes.
MOST_NAMED = 3


def cut(cause: str) -> str:
    """Returns the cause, cut to at most MAX_CAUSE characters."""
    return cause if len(cause) <= MAX_CAUSE else f"{cause[: MAX_CAUSE - 1]}…"


def joined(causes: Collection[str]) -> str:
    """Returns a text with the first causes and the number of further causes."""
    named = ", ".join(islice(causes, MOST_NAMED))
    more = len(causes) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
