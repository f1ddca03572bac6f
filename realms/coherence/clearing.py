"""Clears the caches of all replicas. Tracks which replicas have reported that their caches are
cleared.

A replica is a web service and its sidecar, the process that tells the web service about changes. A
clear sends the replicas the same notifications as a publish. A clear drops only data that can be
loaded or built again. Visitors get the same content as before the clear, but the first read of each
file after the clear is slower.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.utils import timezone

from definitions.lookup import DefinitionLookup
from definitions.models import Definition
from notifications.channels import all_files_changed
from notifications.emit import emit
from notifications.models import Replica
from notifications.sql import DATABASE_TIME
from realms.access.auth import Caller, owns, user_id
from realms.errors import Forbidden, Malformed, NotFound
from realms.models import Realm


@dataclass(frozen=True)
class Target:
    """What to clear: one realm's caches and definitions, one module's definitions, or all
    definitions. A definition describes a card type. If no field is set, the target is everything.
    Raises Malformed if more than one field is set."""

    realm_url: str = ""
    module_url: str = ""
    definitions: bool = False

    def __post_init__(self) -> None:
        if bool(self.realm_url) + bool(self.module_url) + self.definitions > 1:
            raise Malformed(what="choose only one target: a realm, a module, or all definitions")

    def __str__(self) -> str:
        if self.module_url:
            return f"the definitions of {self.module_url}"
        if self.definitions:
            return "all definitions"
        return f"the caches of {self.realm_url}" if self.realm_url else "all caches of all realms"


@dataclass(frozen=True)
class Impact:
    """How many realms, files and definitions a clear affects, and which replicas it notifies. The
    definitions are rows of the database, which the clear deletes."""

    realms: int
    files: int
    definitions: int
    replicas: tuple[str, ...]

    def __str__(self) -> str:
        files = f"{self.files:,} files of {self.realms:,} realms" if self.realms else "no files"
        names = ", ".join(self.replicas) or "none has reported"
        return (
            f"{files} and {self.definitions:,} definitions; replicas: {names}. Visitors get the "
            "same content as before, but the first read of each file is slower."
        )


@dataclass(frozen=True)
class ReplicaAnswer:
    """Whether a replica has applied a clear. `applied` is None while the replica's report may still
    arrive, and False if the replica has stopped reporting."""

    replica: str
    applied: bool | None
    says: str


def impact(target: Target) -> Impact:
    """Counts the realms, files and definitions that `clear(target)` would clear. Doesn't count the
    definitions of modules that depend on the target, although `clear` drops these definitions, too.
    Raises NotFound if the target is a realm that doesn't exist, or a module without definitions."""
    rows = Definition.objects.all()
    realms = Realm.objects.all()
    if target.module_url:
        rows = rows.filter(module_url=target.module_url)
        realms = realms.none()
        if not rows.exists():
            raise NotFound(url=f"The definitions of {target.module_url}")
    elif target.realm_url:
        _realm(target.realm_url)
        realms = realms.filter(url=target.realm_url)
        rows = rows.filter(realm_url=target.realm_url)
    elif target.definitions:
        realms = realms.none()
    files = sum(realms.values_list("file_count", flat=True))
    replicas = Replica.objects.values_list("name", flat=True)
    return Impact(realms.count(), files, rows.count(), tuple(replicas))


def clear(target: Target, caller: Caller, user: str = "") -> datetime:
    """Tells all replicas to clear the target from their caches. Returns the database's time after
    the clear. A replica's watermark is the time before which the replica has applied all changes.
    As soon as the watermark reaches the returned time, the replica has cleared its caches. The
    cause of the clear (`definitions/causes.py`) names `user`, or the caller if `user` is empty.

    The operator may clear every target. The owner of a realm may clear the caches of that realm.
    Raises Forbidden, and NotFound for a realm that doesn't exist.
    """
    by = f"clear by {user or caller.username}"
    with transaction.atomic():
        if target.module_url:
            _check_operator(caller, target)
            DefinitionLookup().invalidate(target.module_url, by=by)
        elif target.realm_url:
            realm = _realm(target.realm_url)
            if not owns(realm, caller):
                user = user_id(caller.username)
                raise Forbidden(user=user, action="clear the caches of", url=realm.url)
            realm.clear_local_source_caches_and_broadcast()
            DefinitionLookup().clear_realm_definitions(realm.url, by=by)
        else:
            _check_operator(caller, target)
            if not target.definitions:
                urls = Realm.objects.values_list("url", flat=True)
                emit(*(all_files_changed(url) for url in urls))
            DefinitionLookup().clear_all_definitions(by=by)
    return _database_time()


def answers(since: datetime) -> list[ReplicaAnswer]:
    """Returns for each replica whether the replica has cleared its caches. `since` is the time that
    `clear` returned."""
    return [_answer(replica, since) for replica in Replica.objects.all()]


def complete(answers: Iterable[ReplicaAnswer]) -> bool:
    """Returns whether every replica has either applied the clear or stopped reporting."""
    return all(each.applied is not None for each in answers)


def _answer(replica: Replica, since: datetime) -> ReplicaAnswer:
    if replica.watermark_at is not None and replica.watermark_at >= since:
        return ReplicaAnswer(replica.name, True, "cleared")
    if not replica.fresh:
        silent = (
            "has not reported; it bypasses its caches, and a restart of its sidecar clears them"
        )
        return ReplicaAnswer(replica.name, False, silent)
    return ReplicaAnswer(replica.name, None, f"{replica.state}, no answer yet")


def _realm(url: str) -> Realm:
    realm = Realm.objects.filter(url=url).first()
    if realm is None:
        raise NotFound(url=url)
    return realm


def _check_operator(caller: Caller, target: Target) -> None:
    if not caller.operator:
        raise Forbidden(user=user_id(caller.username), action="clear", url=str(target))


def _database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute(DATABASE_TIME)
        (now,) = cursor.fetchone() or (timezone.now(),)
    assert isinstance(now, datetime)
    return now
