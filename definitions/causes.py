"""What raised a generation, in words for people. It is stored with every counter that a transaction
raises, so it is short, however much a transaction does."""

from collections.abc import Collection
from itertools import islice

#: In characters. A path may be longer.
MAX_CAUSE = 500
#: How many causes of one transaction are named.
MOST_NAMED = 3


def cut(cause: str) -> str:
    """The cause, with at most MAX_CAUSE characters."""
    return cause if len(cause) <= MAX_CAUSE else f"{cause[: MAX_CAUSE - 1]}…"


def joined(causes: Collection[str]) -> str:
    """The first causes, and how many more there are."""
    named = ", ".join(islice(causes, MOST_NAMED))
    more = len(causes) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
