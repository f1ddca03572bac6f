"""Contains this package's SQL statements that the ORM can't express well. The comment on each
statement says what the statement does and why it is SQL.

`SET` statements are in the functions that send them, not in this module. Triggers are in
`triggers.py`.
"""

from typing import LiteralString

# --- Fragments ---------------------------------------------------------------------------------


def _as_of(version: LiteralString, generation: LiteralString) -> LiteralString:
    """Returns the SQL condition that a file version is valid at a generation; see
    `FileVersionQuerySet.as_of`."""
    return (
        f"{version}.from_generation <= {generation}"
        f" AND ({version}.until_generation IS NULL OR {version}.until_generation > {generation})"
    )


# --- One file ----------------------------------------------------------------------------------

#: Returns one row with the innermost realm that contains a URL, whether everyone may read the
#: realm, and a file. The statement appends the extensions to the URL one after another, and selects
#: the first file that exists. The file's columns are NULL if there is no file. Returns no row if no
#: realm contains the URL. SQL, because one statement is one snapshot, so the generation and the
#: bytes belong together.
RESOLVE: LiteralString = f"""
WITH realm AS (
    SELECT r.id, r.url, r.kind, r.generation
    -- The longest comes first.
    FROM unnest(%(candidates)s::text[]) WITH ORDINALITY u(url, place)
    JOIN realms_realm r ON r.url = u.url
    ORDER BY u.place LIMIT 1
), content AS (
    SELECT r.*,
        COALESCE(p.source_id, r.id) AS content_id,
        COALESCE(p.source_generation, %(at)s::bigint, r.generation) AS content_generation,
        p.generation AS published_at
    FROM realm r LEFT JOIN realms_publication p ON r.kind = 'published'
        -- Every generation of a published realm has its own publication: if that is gone, an
        -- older one is no substitute.
        AND p.realm_id = r.id AND p.generation = COALESCE(%(at)s::bigint, r.generation)
)
SELECT c.id, c.url, c.kind, c.generation, c.published_at,
    EXISTS (
        SELECT 1 FROM realms_realmpermission
        WHERE realm_id = c.id AND audience = 'everyone' AND read
    ) AS public,
    f.path, f.sha256, f.size, f.created_at, f.modified_at, f.from_generation, b.data
FROM content c
LEFT JOIN LATERAL (
    SELECT one.*
    FROM unnest(%(extensions)s::text[]) WITH ORDINALITY e(extension, place)
    -- One subquery for each extension, in the order of the index. For a join, Postgres would expect
    -- the files of an average realm, and might read all files of a large realm.
    CROSS JOIN LATERAL (
        SELECT v.path, v.sha256, v.size, v.created_at, v.modified_at, v.from_generation
        FROM realms_fileversion v WHERE v.realm_id = c.content_id
            AND v.path = substr(%(url)s, length(c.url) + 1) || e.extension
            AND {_as_of("v", "c.content_generation")}
        ORDER BY v.from_generation DESC LIMIT 1
    ) one
    ORDER BY e.place LIMIT 1
) f ON true
LEFT JOIN realms_blob b ON b.sha256 = f.sha256 AND f.sha256 IS DISTINCT FROM %(known)s
"""

#: The stored JavaScript of a source, or the stored error of the transpiler, if any. SQL, because
#: Postgres can keep the plan of this statement, but plans each query of the ORM anew. The statement
#: runs whenever a process loads a module that needs transpiling.
TRANSPILED: LiteralString = """
SELECT body, error FROM realms_transpiledmodule
WHERE sha256 = %(sha256)s AND transpiler = %(transpiler)s
"""

# --- Locks of a publish ------------------------------------------------------------------------

#: The URL of the innermost realm around a URL, if any. SQL, because each publish runs this
#: statement and the next one twice. The ORM would take longer to build the statements than Postgres
#: takes to run them.
OUTER_REALM: LiteralString = """
SELECT r.url FROM unnest(%(candidates)s::text[]) WITH ORDINALITY u(url, place)
JOIN realms_realm r ON r.url = u.url
WHERE r.url <> %(url)s ORDER BY u.place LIMIT 1
"""

#: The URLs of the source realms that a published realm shows or has shown.
SHOWN_SOURCES: LiteralString = """
SELECT DISTINCT s.url FROM realms_realm r
JOIN realms_publication p ON p.realm_id = r.id
JOIN realms_realm s ON s.id = p.source_id
WHERE r.url = %(url)s
"""

# --- Writes ------------------------------------------------------------------------------------

#: Stores blobs in the order of the lists `hashes`, `sizes` and `starts`. `joined` contains the
#: bytes of all blobs, one blob after another. `starts` has the position of each blob's first byte
#: in `joined`, counted from 1. A position is NULL if the blob's row doesn't hold the bytes. An
#: existing row gets a new `stored_at` and stays locked. The bytes are one parameter, because
#: Postgres takes longer to read an array of byte strings. SQL, because the ORM compiles each value
#: of a bytes column separately.
STORE_BLOBS: LiteralString = """
INSERT INTO realms_blob (sha256, size, data, stored_at)
SELECT sha256, size, substr(%(joined)s::bytea, start, size), statement_timestamp()
FROM unnest(%(hashes)s::text[], %(sizes)s::int[], %(starts)s::int[])
    WITH ORDINALITY blob(sha256, size, start, place) ORDER BY place
ON CONFLICT (sha256) DO UPDATE SET stored_at = EXCLUDED.stored_at
"""

#: Opens file versions of a realm at a generation. The lists `paths`, `hashes`, `sizes` and
#: `created` have one element for each version. SQL, because for thousands of rows the ORM would
#: take longer to build the statement than Postgres takes to run it.
OPEN_VERSIONS: LiteralString = """
INSERT INTO realms_fileversion
    (realm_id, path, sha256, size, created_at, modified_at, from_generation)
SELECT %(realm)s, path, sha256, size, created_at, %(now)s, %(generation)s
FROM unnest(%(paths)s::text[], %(hashes)s::text[], %(sizes)s::bigint[], %(created)s::timestamptz[])
    AS version(path, sha256, size, created_at)
"""

#: Raises a realm's generation, and returns one row with the new generation and totals. SQL, because
#: the ORM would need a second statement to read the new values. A process of an older release may
#: have written files without counting them, so a new total could be negative. A negative total is
#: stored as zero.
ADVANCE: LiteralString = """
UPDATE realms_realm SET generation = generation + 1,
    bumped_at = statement_timestamp(),
    bumped_by = %(by)s,
    file_count = greatest(file_count + %(files)s, 0),
    byte_count = greatest(byte_count + %(size)s, 0),
    source_id = coalesce(%(source)s::uuid, source_id),
    last_published_at = coalesce(%(published_at)s::timestamptz, last_published_at)
WHERE id = %(realm)s
RETURNING generation, file_count, byte_count
"""

# --- Listings ----------------------------------------------------------------------------------
# Postgres makes the JSON of a listing, because a listing may have a million files. The ORM can't
# express this. Each statement is one snapshot. Each row is a text with up to a thousand members of
# a JSON object. A realm without files has one row with NULL. If the realm or generation doesn't
# exist, there is no row.

#: Common table expressions. The last one, `files`, has the realm's files below a folder, at a
#: generation. Files that development tools create, as in `node_modules`, are not listed. A realm
#: without files has one row of NULLs.
_FILES: LiteralString = rf"""
content AS (
    SELECT COALESCE(p.source_id, r.id) AS content_id,
        COALESCE(p.source_generation, %(generation)s) AS content_generation
    FROM realms_realm r LEFT JOIN realms_publication p
        ON r.kind = 'published' AND p.realm_id = r.id AND p.generation = %(generation)s
    WHERE r.id = %(realm)s AND (r.kind <> 'published' OR p.id IS NOT NULL)
), files AS (
    SELECT v.path, v.created_at, v.modified_at
    FROM content c LEFT JOIN realms_fileversion v ON v.realm_id = c.content_id
        AND {_as_of("v", "c.content_generation")}
        AND starts_with(v.path, %(folder)s)
        AND v.path !~ '(^|/)(node_modules|\.git)(/|$)|(^|/)\.realm\.json$|^\.template-lintrc\.js$'
)
"""

#: An expression that escapes `path` in the same way as `file_url`.
_ESCAPED: LiteralString = r"""
CASE WHEN path ~ '^[][A-Za-z0-9/:@!$&''()+,;=~._|^-]*$' THEN path ELSE (
    SELECT string_agg(CASE WHEN letter ~ '[][A-Za-z0-9/:@!$&''()+,;=~._|^-]' THEN letter
        ELSE regexp_replace(upper(encode(convert_to(letter, 'UTF8'), 'hex')), '(..)', '%%\1', 'g')
        END, '' ORDER BY place)
    FROM regexp_split_to_table(path, '') WITH ORDINALITY AS letters (letter, place)
) END
"""

#: The time of each file's last change, by its URL.
LIST_TIMES: LiteralString = f"""
WITH {_FILES}
SELECT string_agg(
    to_json(%(url)s || {_ESCAPED})::text || ': ' || extract(epoch FROM modified_at), ', '
    ORDER BY path
) FROM (SELECT *, row_number() OVER (ORDER BY path) / 1000 AS part FROM files) numbered
GROUP BY part ORDER BY part
"""

#: The files and folders directly below a folder, by name.
LIST_FOLDER: LiteralString = f"""
WITH {_FILES}, named AS (
    SELECT substr(path, length(%(folder)s) + 1) AS rest, created_at, modified_at FROM files
), entries AS (
    SELECT split_part(rest, '/', 1) || CASE WHEN strpos(rest, '/') > 0 THEN '/' ELSE '' END AS path,
        max(created_at) AS created_at, max(modified_at) AS modified_at
    FROM named GROUP BY 1
)
SELECT string_agg(
    to_json(path)::text || ': {{"links": {{"related": ' || to_json(%(url)s || {_ESCAPED})::text
    || '}}, "meta": ' || CASE WHEN path LIKE '%%/' THEN '{{"kind": "directory"}}}}' ELSE
        '{{"kind": "file", "lastModified": ' || extract(epoch FROM modified_at)
        || ', "resourceCreatedAt": ' || extract(epoch FROM created_at) || '}}}}' END, ', '
    ORDER BY path
) FROM (SELECT *, row_number() OVER (ORDER BY path) / 1000 AS part FROM entries) numbered
GROUP BY part ORDER BY part
"""

# --- Differences between generations -----------------------------------------------------------

#: The files of a source realm that differ between the generations `then` and `now`. Each row has a
#: file's path, and the file's hash at `now`. The hash is NULL if the file doesn't exist at `now`.
#: SQL, because the ORM can't join a table with itself.
DIFFERENCE: LiteralString = f"""
WITH bounds AS (
    SELECT least(%(then)s, %(now)s)::bigint AS low, greatest(%(then)s, %(now)s)::bigint AS high
), touched AS (
    SELECT DISTINCT path FROM realms_fileversion, bounds
    WHERE realm_id = %(realm)s AND (
        (from_generation > low AND from_generation <= high)
        OR (until_generation > low AND until_generation <= high)
    )
)
SELECT t.path, new.sha256 FROM touched t
LEFT JOIN realms_fileversion old ON old.realm_id = %(realm)s AND old.path = t.path
    AND {_as_of("old", "%(then)s")}
LEFT JOIN realms_fileversion new ON new.realm_id = %(realm)s AND new.path = t.path
    AND {_as_of("new", "%(now)s")}
WHERE old.sha256 IS DISTINCT FROM new.sha256
"""

# --- Garbage -----------------------------------------------------------------------------------
# SQL, because one statement chooses the rows and deletes them, so no concurrent transaction can add
# a reference in between.

#: The keys of the publications that are too old for a rollback and that no pin refers to.
OLD_PUBLICATIONS: LiteralString = """
SELECT id FROM (
    SELECT id, realm_id, generation, row_number() OVER newest AS place,
        lag(generation) OVER newest AS next_generation, lag(at) OVER newest AS superseded_at
    FROM realms_publication
    WHERE realm_id = ANY(%(realms)s)
    WINDOW newest AS (PARTITION BY realm_id ORDER BY generation DESC)
) p
WHERE place > %(kept)s AND superseded_at < %(before)s AND NOT EXISTS (
    SELECT FROM unnest(%(pinned)s::uuid[], %(pins)s::bigint[]) pin(realm_id, generation)
    WHERE pin.realm_id = p.realm_id
        AND pin.generation >= p.generation AND pin.generation < p.next_generation
)
"""

#: The keys of the versions that were closed before the retention time, and that neither a pin nor a
#: publication shows. The publications in `dropped` are ignored.
OLD_VERSIONS: LiteralString = f"""
SELECT v.id FROM realms_fileversion v
WHERE v.realm_id = ANY(%(realms)s) AND v.closed_at < %(before)s AND NOT EXISTS (
    SELECT FROM realms_publication p
    WHERE p.source_id = v.realm_id AND p.id <> ALL(%(dropped)s::bigint[])
        AND {_as_of("v", "p.source_generation")}
) AND NOT EXISTS (
    SELECT FROM unnest(%(pinned)s::uuid[], %(pins)s::bigint[]) pin(realm_id, generation)
    WHERE pin.realm_id = v.realm_id AND {_as_of("v", "pin.generation")}
)
"""

#: The hashes of the blobs that are past their grace period and that no version uses. The versions
#: in `gone` are ignored.
_OLD_BLOBS: LiteralString = """
SELECT b.sha256 FROM realms_blob b
WHERE b.stored_at < %(young)s AND NOT EXISTS (
    SELECT FROM realms_fileversion v
    WHERE v.sha256 = b.sha256 AND v.id <> ALL(%(gone)s::bigint[])
)
"""

#: Deletes the publications that OLD_PUBLICATIONS selects.
DELETE_OLD_PUBLICATIONS: LiteralString = f"""
DELETE FROM realms_publication WHERE id IN ({OLD_PUBLICATIONS})
"""

#: Deletes the versions that OLD_VERSIONS selects. Returns the `until_generation` of each deleted
#: version.
DELETE_OLD_VERSIONS: LiteralString = f"""
DELETE FROM realms_fileversion WHERE id IN ({OLD_VERSIONS}) RETURNING until_generation
"""

#: Deletes up to `batch` of the blobs that _OLD_BLOBS selects, except blobs that a writer has
#: locked. For each deleted blob, returns its hash, its size, and whether its content is in the
#: storage.
DELETE_OLD_BLOBS: LiteralString = f"""
DELETE FROM realms_blob WHERE sha256 IN (
    {_OLD_BLOBS} ORDER BY b.sha256 LIMIT %(batch)s FOR UPDATE OF b SKIP LOCKED
) RETURNING sha256, size, data IS NULL
"""

#: The size of each blob that _OLD_BLOBS selects.
SIZES_OF_OLD_BLOBS: LiteralString = f"""
SELECT size FROM realms_blob WHERE sha256 IN ({_OLD_BLOBS})
"""

# --- Finished work -----------------------------------------------------------------------------

#: The jobs that ended before a given time.
_ENDED: LiteralString = """
(SELECT id FROM reindex_reindexjob WHERE status IN ('done', 'superseded', 'cancelled')
    AND finished_at < %(before)s)
"""

#: For each kind of finished work, the SQL that follows DELETE or SELECT and chooses the rows that
#: are no longer needed. Cards and batches must come before their jobs. A job is kept while one of
#: its cards is shown. SQL, because Postgres computes the hashes of modules, and because one loop
#: can then delete or count the rows of all kinds.
FINISHED_ROWS: dict[str, LiteralString] = {
    "cards": f"FROM reindex_indexedcard t WHERE NOT t.current AND t.job_id IN {_ENDED}",
    "batches": f"FROM reindex_reindexbatch t WHERE t.job_id IN {_ENDED}",
    "jobs": f"""
        FROM reindex_reindexjob t WHERE t.id IN {_ENDED}
        AND NOT EXISTS (SELECT FROM reindex_indexedcard c WHERE c.job_id = t.id AND c.current)
        AND NOT EXISTS (SELECT FROM reindex_indexhead h WHERE h.job_id = t.id)
    """,
    # To get a module's key, append the file's extension to the source file's hash, and hash the
    # resulting text.
    "transpiled modules": r"""
        FROM realms_transpiledmodule t
        WHERE t.made_at < %(before)s AND (t.transpiler <> %(transpiler)s OR t.sha256 NOT IN (
            SELECT encode(sha256(convert_to(v.sha256 || substring(v.path from '\.[^./]+$'),
                'UTF8')), 'hex')
            FROM realms_fileversion v WHERE v.path ~ '\.[^./]+$'
        ))
    """,
    "owner usage": "FROM reindex_ownerusage t WHERE t.counted_at < %(before)s",
    "hangs": "FROM reindex_hang t WHERE t.seen_at < %(forgotten)s",
    "elections": "FROM notifications_election t WHERE t.lease_until < %(before)s",
    "sessions": "FROM django_session t WHERE t.expire_date < %(now)s",
}

# --- Metrics -----------------------------------------------------------------------------------

#: Returns a row for each replica that has reported since a given time. The row has the replica's
#: name and the number of generations that the replica has yet to apply, summed over all realms.
#: SQL, because the ORM can't join tables that no foreign key connects.
GENERATIONS_BEHIND: LiteralString = """
SELECT p.name, COALESCE(SUM(GREATEST(r.generation - COALESCE(g.generation, 0), 0)), 0)
FROM notifications_replica p CROSS JOIN realms_realm r
LEFT JOIN notifications_replicageneration g ON g.replica_id = p.name AND g.realm_url = r.url
WHERE p.reported_at > %s GROUP BY p.name
"""

#: Returns one row with the number of jobs done in the last hour, the number of cards that these
#: jobs rendered, and the percentiles `shares` of the jobs' durations and waiting times. SQL,
#: because the ORM has no percentiles.
JOBS_OF_LAST_HOUR: LiteralString = """
SELECT count(*), coalesce(sum(rendered), 0),
    percentile_disc(%(shares)s::float[]) WITHIN GROUP (
        ORDER BY extract(epoch FROM finished_at - started_at)::float),
    percentile_disc(%(shares)s::float[]) WITHIN GROUP (
        ORDER BY extract(epoch FROM started_at - created_at)::float)
FROM reindex_reindexjob
WHERE status = 'done' AND started_at IS NOT NULL
    AND finished_at > %(now)s - interval '1 hour' AND finished_at <= %(now)s
"""

# --- The coherence page -----------------------------------------------------------------------

#: The ids of one page of realms, the worst first. If the page doesn't exist, the ids of the last
#: page. Each row also has the number of realms on all pages. The realms are sorted by three keys:
#: how many generations the slowest reporting replica has yet to apply, whether the realm's pages
#: are outdated, and the realm's URL. With `problems`, realms without a problem are left out. SQL,
#: because the ORM would query the generations of each realm separately.
WORST_FIRST: LiteralString = """
WITH reporting AS (
    SELECT name FROM notifications_replica WHERE reported_at > %(fresh)s
), applied AS (
    SELECT g.realm_url, min(g.generation) AS lowest, count(*) AS replicas
    FROM notifications_replicageneration g JOIN reporting ON reporting.name = g.replica_id
    GROUP BY g.realm_url
), judged AS (
    SELECT r.id, r.url,
        CASE WHEN (SELECT count(*) FROM reporting) > coalesce(a.replicas, 0) THEN r.generation
            ELSE greatest(r.generation - a.lowest, 0) END AS behind,
        r.kind = 'published' AND coalesce(h.generation, 0) < r.generation AS pages_behind
    FROM realms_realm r
    LEFT JOIN applied a ON a.realm_url = r.url
    LEFT JOIN reindex_indexhead h ON h.realm_url = r.url
    WHERE position(lower(%(text)s) IN lower(r.url)) > 0
), placed AS (
    SELECT id, count(*) OVER () AS total,
        row_number() OVER (ORDER BY behind DESC, pages_behind DESC, url) AS place
    FROM judged WHERE NOT %(problems)s OR behind > 0 OR pages_behind
), pages AS (
    SELECT id, total, place, least(%(page)s, (total - 1) / %(size)s + 1) AS page FROM placed
)
SELECT id, total FROM pages WHERE place > (page - 1) * %(size)s AND place <= page * %(size)s
ORDER BY place
"""
