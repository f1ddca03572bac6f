"""Contains what several management commands share: the option `--as USER`, the options for
confirmations, the types of options, and the conversion of errors."""

import math
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db import Error as DatabaseError

from notifications.texts import whole_number
from realms.access.auth import OPERATOR, Caller
from realms.errors import RealmError


def add_caller(parser: ArgumentParser) -> None:
    """Adds the option `--as USER`. The command acts with this user's rights."""
    parser.add_argument(
        "--as",
        dest="as_user",
        metavar="USER",
        help="act with this user's rights (default: the operator, who may do everything)",
    )


def caller(options: dict[str, object]) -> Caller:
    """Returns the user that the option `--as` names, or the operator if the option is missing.
    Raises CommandError for an unknown user."""
    name = options.get("as_user")
    if name is None:
        return Caller(OPERATOR, operator=True)
    account = get_user_model().objects.filter(username=name).first()
    if account is None:
        raise CommandError(f"there is no user {name!r}")
    return Caller.of(account)


def add_confirmation(parser: ArgumentParser) -> None:
    """Adds the options `--dry-run` and `--yes`, for commands that may ask for confirmation."""
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would happen, but change nothing"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def confirmed(options: dict[str, object], question: str) -> bool:
    """Asks the user to confirm the operation, and returns whether the user does. Without asking,
    returns False for `--dry-run` and True for `--yes`. Raises CommandError if nobody can answer,
    because stdin is not a terminal."""
    if options["dry_run"]:
        return False
    if options["yes"]:
        return True
    if not sys.stdin.isatty():
        raise CommandError(f"{question} stdin is not a terminal: pass --yes or --dry-run.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def positive(text: str) -> int:
    """Parses the value of an option that takes a whole number from 1. Raises ArgumentTypeError."""
    number = whole_number(text)
    if not number:
        raise ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number


def seconds(text: str) -> float:
    """Parses the value of an option that takes a number of seconds. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def some_seconds(text: str) -> float:
    """Parses as `seconds`, but also refuses 0 and infinity."""
    if seconds(text) in (0, math.inf):
        raise ArgumentTypeError(f"{text!r} is not a positive, finite number of seconds")
    return seconds(text)


@contextmanager
def command_errors() -> Iterator[None]:
    """Turns expected errors into one line on stderr and exit status 1."""
    try:
        yield
    except RealmError as error:
        raise CommandError(str(error)) from error
    except DatabaseError as error:
        raise CommandError(f"the database: {error}") from error
