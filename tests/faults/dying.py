"""Publishes a realm in a process that kills itself at a step of the publish. Run this module as
`python -m tests.faults.dying STEP SOURCE PUBLISHED`. STEPS lists the steps."""

import os
import signal
import sys
from typing import Any

STEPS = [
    f"{when} {what}"
    for what in (
        "the lock", "the swap", "the caches", "the definitions", "the job", "the commit",
        "the board", "the message",
    )
    for when in ("before", "after")
]  # fmt: skip


def _die_at(step: str) -> None:
    """Patches the function of a step, so that the process kills itself before or after the function
    runs."""
    from unittest import mock

    from django.db import connection

    from definitions.lookup import DefinitionLookup
    from notifications.board import Board
    from realms.models import Publication
    from realms.publishing import effects, publish
    from reindex.jobs import messages, queue

    when, what = step.split(" ", 1)
    owner, name = {
        "the lock": (publish, "realm_write_lock"),
        "the swap": (Publication.objects, "create"),
        "the caches": (effects, "notify_replicas"),
        "the definitions": (DefinitionLookup, "drop"),
        "the job": (queue, "enqueue"),
        "the commit": (connection, "_commit"),
        "the board": (Board, "bump"),
        "the message": (messages, "send"),
    }[what]
    plain = getattr(owner, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        plain(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    mock.patch.object(owner, name, dying).start()


def main(step: str, source: str, published: str) -> None:
    """Publishes a realm, and kills the process at `step`. If `step` isn't in STEPS, completes the
    publish."""
    import django

    django.setup()

    from django.core.management import CommandError, call_command

    if step in STEPS:
        _die_at(step)
    try:
        call_command("publish_realm", source, published, "--no-wait", "--yes")
    except CommandError as error:
        # The publish fails, for example, if an author has just deleted the source realm.
        print(error, file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    main(*sys.argv[1:])
