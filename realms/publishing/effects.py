"""What follows from the changes of a transaction, done within it.

First what this replica's board moves by at the commit, then what peers are told, the definitions,
and last the jobs, whose messages are sent after the board has moved.
"""

from collections.abc import Sequence

from django.conf import settings

from definitions.lookup import DefinitionLookup
from notifications.channels import MAX_PATHS_PER_STATEMENT
from notifications.emit import bump_at_commit, emit
from realms.addresses import EXECUTABLE_EXTENSIONS
from realms.content.changes import (
    Change,
    board_keys,
    cleared,
    is_draft,
    needs_job,
    moved,
    notifications,
    changed_for_readers,
)
from reindex.jobs import queue
from reindex.reading.references import file_url


def carry_out(changes: Sequence[Change]) -> None:
    """Sees to caches, definitions and jobs, in the transaction that makes the changes."""
    bump_at_commit({key for change in changes for key in board_keys(change)})
    tell_replicas(changes)
    drop_definitions(changes)
    enqueue_jobs(changes)


def tell_replicas(changes: Sequence[Change]) -> None:
    """Sends the notifications that no trigger sends."""
    told = dict.fromkeys(each for change in changes for each in notifications(change))
    if told:
        emit(*told)


def drop_definitions(changes: Sequence[Change]) -> None:
    """Drops what was built from realms, or from modules that are others now, or weren't there, or
    are gone; and what was built from data that a module imports. Most data is imported by none."""
    realms = {change.realm_url for change in changes if cleared(change)}
    lookup = DefinitionLookup()
    modules: list[str] = []
    for change in changes:
        if not change.paths or change.realm_url in realms:
            continue
        urls = {path: file_url(change.realm_url, path) for path in sorted(change.paths)}
        data = [url for path, url in urls.items() if not path.endswith(EXECUTABLE_EXTENSIONS)]
        named = [url for path, url in urls.items() if path.endswith(EXECUTABLE_EXTENSIONS)]
        named += lookup.needed(data) if data else []
        if len(named) > MAX_PATHS_PER_STATEMENT:
            realms.add(change.realm_url)
        else:
            modules += named
    if realms or modules:
        lookup.drop(realms, modules)


def enqueue_jobs(changes: Sequence[Change]) -> None:
    """Owes what the realms themselves and those that read them need; takes the pages away of what
    is gone."""
    owed: dict[str, queue.Work] = {}
    for change in changes:
        if not change.exists_after:
            owed.pop(change.realm_url, None)
        elif needs_job(change, settings.REALM_INDEX_SOURCES):
            draft = is_draft(change)
            owed[change.realm_url] = queue.Work(
                change.realm_url, change.generation, change.owner, draft=draft, debounced=draft
            )
    queue.enqueue(
        owed.values(),
        changed={url for change in changes for url in changed_for_readers(change)},
        appeared={change.realm_url for change in changes if change.appeared},
        moved={url for change in changes for url in moved(change)},
        gone={change.realm_url for change in changes if not change.exists_after},
    )
