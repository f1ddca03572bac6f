"""Shortens causes. A cause is a text that tells people why a realm's generation or a counter of
definitions was raised. One transaction can raise many generations and counters, and stores the
cause with each. So the length of a cause is limited.
"""

from collections.abc import Collection
from itertools import islice

#: The maximum length of a cause. Unit: characters.
MAX_CAUSE = 500
#: How many causes `joined` names.
MOST_NAMED = 3


def cut(cause: str) -> str:
    """Returns the cause, cut to at most MAX_CAUSE characters."""
    return cause if len(cause) <= MAX_CAUSE else f"{cause[: MAX_CAUSE - 1]}…"


def joined(causes: Collection[str]) -> str:
    """Joins the causes of one transaction into one text. The text names the first MOST_NAMED causes
    and gives the number of the others."""
    named = ", ".join(islice(causes, MOST_NAMED))
    more = len(causes) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
