"""Notifies replicas, drops outdated definitions and queues jobs, within the transaction that
changes realms. A definition says what a module exports. A job renders a realm's pages.

When the transaction commits, this process makes cached answers of this replica stale, and sends
Celery messages, which tell workers of the jobs. Django runs callbacks at commit in the order of
their registration. `carry_out` registers the callback for the caches first. So when a worker begins
to read from this replica, the replica no longer serves the stale answers.
"""

from collections.abc import Sequence

from django.conf import settings

from definitions.causes import joined
from definitions.extensions import EXECUTABLE_EXTENSIONS
from definitions.lookup import DefinitionLookup
from notifications.channels import MAX_PATHS_PER_STATEMENT, REALM_TRACES, Notification
from notifications.emit import bump_at_commit, emit
from notifications.tracing import spans
from realms.content.changes import (
    Change,
    changed_for_readers,
    drops_all_definitions,
    is_draft,
    keys_moved_here,
    moved,
    needs_job,
    notifications_of,
)
from reindex.jobs import queue
from reindex.reading.references import file_url


def carry_out(changes: Sequence[Change]) -> None:
    """Carries out the consequences of all changes of a transaction, just before the transaction
    ends (`content/changes.py`)."""
    bump_at_commit({key for change in changes for key in keys_moved_here(change)})
    with spans.span("notify"):
        notify_replicas(changes)
    with spans.span("drop definitions"):
        drop_definitions(changes)
    with spans.span("enqueue"):
        enqueue_jobs(changes)


def notify_replicas(changes: Sequence[Change]) -> None:
    """Notifies all replicas of the changes. Leaves out the changes that database triggers
    announce."""
    distinct = dict.fromkeys(each for change in changes for each in notifications_of(change))
    span = spans.current()
    if span:
        distinct[Notification(REALM_TRACES, span)] = None
    if distinct:
        emit(*distinct)


def drop_definitions(changes: Sequence[Change]) -> None:
    """Drops the definitions that the changes may have outdated.

    If a realm's permissions change, or if all of its files may have changed (as in a publish), all
    definitions that were built from the realm are dropped. They are also dropped if more than
    MAX_PATHS_PER_STATEMENT files matter: the changed modules, and the other changed files from
    which definitions were built. For fewer files, only the definitions built from them are dropped.

    Even a new module can outdate a definition, because the build of the definition may have looked
    for the module before the module existed.
    """
    realms = {change.realm_url for change in changes if drops_all_definitions(change)}
    lookup = DefinitionLookup()
    modules: list[str] = []
    by: dict[str, None] = {}
    for change in changes:
        if change.realm_url in realms:
            by[change.by] = None
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
        if named:
            by[f"{change.by} in {change.realm_url}"] = None
    if realms or modules:
        lookup.drop(realms, modules, joined(by))


def enqueue_jobs(changes: Sequence[Change]) -> None:
    """Enqueues jobs that render the pages of the changed realms again, and the pages of other
    realms that depend on a changed realm. Removes the pages of deleted realms."""
    works: dict[str, queue.Work] = {}
    for change in changes:
        if not change.exists_after:
            works.pop(change.realm_url, None)
        elif needs_job(change, settings.REALM_INDEX_SOURCES):
            draft = is_draft(change)
            works[change.realm_url] = queue.Work(
                change.realm_url, change.generation, change.owner, draft=draft, debounced=draft
            )
    queue.enqueue(
        works.values(),
        changed={url for change in changes for url in changed_for_readers(change)},
        appeared={change.realm_url for change in changes if change.appeared},
        moved={url for change in changes for url in moved(change)},
        gone={change.realm_url for change in changes if not change.exists_after},
    )
