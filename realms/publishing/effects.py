"""Updates caches, definitions and jobs after changes of realms, within the transaction that makes
the changes.

`carry_out` registers the move of the local board before it enqueues jobs. Django runs the callbacks
at commit in the order of their registration, so the board is moved before Celery gets a message.
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
    """Updates caches, definitions and jobs for changes of realms, in the transaction that makes the
    changes."""
    bump_at_commit({key for change in changes for key in keys_moved_here(change)})
    with spans.span("notify"):
        notify_replicas(changes)
    with spans.span("drop definitions"):
        drop_definitions(changes)
    with spans.span("enqueue"):
        enqueue_jobs(changes)


def notify_replicas(changes: Sequence[Change]) -> None:
    """Sends the notifications about the changes to all replicas. Leaves out the notifications that
    database triggers send."""
    distinct = dict.fromkeys(each for change in changes for each in notifications_of(change))
    span = spans.current()
    if span:
        distinct[Notification(REALM_TRACES, span)] = None
    if distinct:
        emit(*distinct)


def drop_definitions(changes: Sequence[Change]) -> None:
    """Drops the definitions that changes may have outdated.

    All definitions that were built from a realm are dropped if the realm's permissions change, or
    if all of its files may have changed, as in a publish. If only certain files of the realm
    change, the definitions that were built from these files are dropped. Definitions can depend on
    a new module, because an earlier build may have looked for the module and failed.
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
    """Enqueues jobs that render each changed realm and every realm that reads files of a changed
    realm. Removes the pages of deleted realms."""
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
