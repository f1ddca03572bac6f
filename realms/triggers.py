"""Defines database triggers (django-pgtrigger) that announce, check and record changes of rows. To
announce a change, a trigger sends a notification to all replicas (`notifications/channels.py`).

A trigger runs for each write, no matter whether the ORM, a migration or psql sends the write.
"""

import pgtrigger

from notifications.channels import (
    MAX_PATHS_PER_STATEMENT,
    PAYLOAD_BUDGET,
    REALM_FILE_CHANGES,
    REALM_REGISTRY,
)

_UPSERT = f"PERFORM pg_notify('{REALM_REGISTRY}', 'upsert:' || NEW.url); RETURN NULL;"
#: Announces that a realm was created, deleted or changed. Doesn't announce an update that changes
#: only columns in `exclude`. Such an update accompanies a change of the realm's files, which is
#: announced separately (`ANNOUNCE_FILES`), or the removal of old file versions.
ANNOUNCE_REALM = [
    pgtrigger.Trigger(
        name="announce_realm", operation=pgtrigger.Insert, when=pgtrigger.After, func=_UPSERT
    ),
    pgtrigger.Trigger(
        name="announce_realm_changed",
        operation=pgtrigger.Update,
        when=pgtrigger.After,
        condition=pgtrigger.AnyChange(
            exclude=[
                "generation",
                "bumped_at",
                "bumped_by",
                "history_from",
                "file_count",
                "byte_count",
            ]
        ),
        func=_UPSERT,
    ),
    pgtrigger.Trigger(
        name="announce_realm_gone",
        operation=pgtrigger.Delete,
        when=pgtrigger.After,
        func=f"PERFORM pg_notify('{REALM_REGISTRY}', 'delete:' || OLD.url); RETURN NULL;",
    ),
]

GENERATION_NEVER_FALLS = pgtrigger.Trigger(
    name="generation_never_falls",
    operation=pgtrigger.Update,
    when=pgtrigger.Before,
    condition=pgtrigger.Q(new__generation__lt=pgtrigger.F("old__generation")),
    func="RAISE EXCEPTION 'the generation of % can not fall from % to %', "
    "OLD.url, OLD.generation, NEW.generation;",
)

#: Records in a publication's row how long the publish has held its locks. The trigger is deferred,
#: so it runs when the commit begins, after all other statements of the publish.
NOTE_LOCK_HELD = pgtrigger.Trigger(
    name="note_lock_held",
    operation=pgtrigger.Insert,
    when=pgtrigger.After,
    timing=pgtrigger.Deferred,
    condition=pgtrigger.Q(new__locked_at__isnull=False),
    func="""
        UPDATE realms_publication
            SET lock_held = extract(epoch FROM clock_timestamp() - NEW.locked_at)
            WHERE id = NEW.id;
        RETURN NULL;
    """,
)

#: The generation at a URL never falls, even if the realm at the URL is deleted. A tombstone row
#: keeps the last generation of the deleted realm. A new realm at the URL starts with the next
#: generation.
_ENTOMB = """
    INSERT INTO realms_realmtombstone AS t (url, generation, at) {gone}
    ON CONFLICT (url) DO UPDATE
        SET generation = greatest(t.generation, excluded.generation), at = excluded.at;
    RETURN NULL;
"""
KEEP_TOMBSTONES = [
    pgtrigger.Trigger(
        name="keep_tombstone",
        operation=pgtrigger.Delete,
        when=pgtrigger.After,
        func=_ENTOMB.format(gone="VALUES (OLD.url, OLD.generation, now())"),
    ),
    pgtrigger.Trigger(
        name="keep_tombstones",
        level=pgtrigger.Statement,
        operation=pgtrigger.Truncate,
        when=pgtrigger.Before,
        func=_ENTOMB.format(gone="SELECT url, generation, now() FROM realms_realm"),
    ),
    # This trigger runs after the insert. URLs are unique, so the insert waits until a concurrent
    # delete of the former realm at this URL has committed. A trigger that ran before the insert
    # could miss the tombstone that this delete writes.
    pgtrigger.Trigger(
        name="go_on_from_tombstone",
        operation=pgtrigger.Insert,
        when=pgtrigger.After,
        func="""
            WITH tombstone AS (
                DELETE FROM realms_realmtombstone WHERE url = NEW.url RETURNING generation
            )
            UPDATE realms_realm r SET generation = t.generation + 1 FROM tombstone t
            WHERE r.id = NEW.id AND r.generation <= t.generation;
            RETURN NULL;
        """,
    ),
]

URL_NEVER_CHANGES = pgtrigger.Trigger(
    name="url_never_changes",
    operation=pgtrigger.Update,
    when=pgtrigger.Before,
    condition=pgtrigger.Q(new__url__df=pgtrigger.F("old__url")),
    func="RAISE EXCEPTION 'the URL of % can not change', OLD.url;",
)

#: Announces a change of a realm's permissions as a change of the realm, so that cached answers
#: become stale. A cached answer says whether the realm is public. If the realm is public, replicas
#: serve the cached answer without querying the permissions.
ANNOUNCE_PERMISSION = pgtrigger.Trigger(
    name="announce_permission",
    operation=pgtrigger.Insert | pgtrigger.Update | pgtrigger.Delete,
    when=pgtrigger.After,
    func=f"""
        PERFORM pg_notify('{REALM_REGISTRY}', 'upsert:' || r.url)
        FROM realms_realm r WHERE r.id IN (NEW.realm_id, OLD.realm_id);
        RETURN NULL;
    """,
)

#: Records when an account got its username. Some tokens name only the username, not the account.
#: Such a token is invalid if it was issued before this time, because another account may have had
#: the username then.
NAMED_SINCE = pgtrigger.Trigger(
    name="named_since",
    operation=pgtrigger.Insert | pgtrigger.UpdateOf("username"),  # type: ignore[no-untyped-call]
    when=pgtrigger.After,
    func="""
        IF TG_OP = 'INSERT' OR NEW.username IS DISTINCT FROM OLD.username THEN
            INSERT INTO realms_accountname (account_id, since)
            VALUES (NEW.id, clock_timestamp())
            ON CONFLICT (account_id) DO UPDATE SET since = EXCLUDED.since;
        END IF;
        RETURN NULL;
    """,
)


def _announce_files(name: str, operation: pgtrigger.Operation) -> pgtrigger.Trigger:
    return pgtrigger.Trigger(
        name=name,
        level=pgtrigger.Statement,
        operation=operation,
        when=pgtrigger.After,
        referencing=pgtrigger.Referencing(new="touched"),  # type: ignore[no-untyped-call]
        func=f"""
            PERFORM pg_notify('{REALM_FILE_CHANGES}', payload) FROM (
                SELECT DISTINCT CASE
                    WHEN (SELECT count(*) FROM touched) > {MAX_PATHS_PER_STATEMENT}
                      OR octet_length(r.url || ':' || t.path) > {PAYLOAD_BUDGET}
                    THEN r.url || ':*'
                    ELSE r.url || ':' || t.path
                END AS payload
                FROM touched t JOIN realms_realm r ON r.id = t.realm_id
            ) changes;
            RETURN NULL;
        """,
    )


ANNOUNCE_FILES = [
    _announce_files("announce_files_opened", pgtrigger.Insert),
    _announce_files("announce_files_closed", pgtrigger.Update),
]

#: Refuses every update of a file version except one that closes it. An update closes a version by
#: setting `until_generation`. A version that is closed can't change any more.
VERSION_IS_IMMUTABLE = pgtrigger.Trigger(
    name="version_is_immutable",
    operation=pgtrigger.Update,
    when=pgtrigger.Before,
    condition=pgtrigger.Condition(
        "OLD.until_generation IS NOT NULL OR"
        " (OLD.realm_id, OLD.path, OLD.sha256, OLD.size, OLD.created_at, OLD.modified_at,"
        " OLD.from_generation) IS DISTINCT FROM"
        " (NEW.realm_id, NEW.path, NEW.sha256, NEW.size, NEW.created_at, NEW.modified_at,"
        " NEW.from_generation)"
    ),
    func="RAISE EXCEPTION 'a file version can only be closed, and only once: %', OLD.path;",
)
