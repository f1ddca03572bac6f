"""Contains this package's SQL statements that the ORM can't express well. The comment on each
statement says what the statement does and why it is SQL.

`SET` statements are in the functions that send them. Triggers are in `triggers.py`.
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
#: realm, and a file. Appends each of `extensions` to the URL in turn, and selects the first file
#: that exists. The file's columns are NULL if there is no file. Returns no row if no realm contains
#: the URL. This is one SQL statement, so that the realm's generation and the file's bytes come from
#: one snapshot of the database.
RESOLVE: LiteralString = f"""
WITH realm AS (
    SELECT r.id, r.url, r.kind, r.generation
    -- The candidates are possible URLs of the realm, the longest first.
    FROM unnest(%(candidates)s::text[]) WITH ORDINALITY u(url, place)
    JOIN realms_realm r ON r.url = u.url
    ORDER BY u.place LIMIT 1
), content AS (
    SELECT r.*,
        COALESCE(p.source_id, r.id) AS content_id,
        COALESCE(p.source_generation, %(at)s::bigint, r.generation) AS content_generation,
        p.generation AS published_at
    FROM realm r LEFT JOIN realms_publication p ON r.kind = 'published'
        -- Every generation of a published realm has its own publication. An older publication may
        -- show other files, so it must not replace a deleted one.
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
    -- This subquery runs once for each extension, and its ORDER BY fits the index. A join might
    -- read all files of a large realm, because Postgres would plan it for a realm of average size.
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

#: Selects the stored result of transpiling a source, which is the JavaScript or an error. This is
#: SQL, because Postgres can keep the plan of this statement, but plans each query of the ORM anew.
#: The statement runs whenever a process loads a module that needs transpiling.
TRANSPILED: LiteralString = """
SELECT body, error FROM realms_transpiledmodule
WHERE sha256 = %(sha256)s AND transpiler = %(transpiler)s
"""

# --- Locks of a publish ------------------------------------------------------------------------

#: Returns the URL of the innermost realm around a URL, if any. Ignores a realm at exactly this URL.
#: OUTER_REALM and SHOWN_SOURCES are SQL, because each publish runs both at least twice, and the ORM
#: would take longer to build them than Postgres takes to run them.
OUTER_REALM: LiteralString = """
SELECT r.url FROM unnest(%(candidates)s::text[]) WITH ORDINALITY u(url, place)
JOIN realms_realm r ON r.url = u.url
WHERE r.url <> %(url)s ORDER BY u.place LIMIT 1
"""

#: Returns the URLs of the source realms that a published realm shows or has shown.
SHOWN_SOURCES: LiteralString = """
SELECT DISTINCT s.url FROM realms_realm r
JOIN realms_publication p ON p.realm_id = r.id
JOIN realms_realm s ON s.id = p.source_id
WHERE r.url = %(url)s
"""

# --- Writes ------------------------------------------------------------------------------------

#: Stores blobs in the order of the lists `hashes`, `sizes` and `starts`. `joined` contains the
#: bytes of the small blobs, one blob after another. For a small blob, `starts` has the position of
#: the first byte in `joined`, counted from 1. For a large blob, `starts` has NULL, because the blob
#: storage holds the bytes. If a blob already has a row, the row gets a new `stored_at` and is
#: locked. The bytes are one parameter, because Postgres takes longer to read an array of byte
#: strings. This is SQL, because the ORM would compile each value of a bytes column separately.
STORE_BLOBS: LiteralString = """
INSERT INTO realms_blob (sha256, size, data, stored_at)
SELECT sha256, size, substr(%(joined)s::bytea, start, size), statement_timestamp()
FROM unnest(%(hashes)s::text[], %(sizes)s::int[], %(starts)s::int[])
    WITH ORDINALITY blob(sha256, size, start, place) ORDER BY place
ON CONFLICT (sha256) DO UPDATE SET stored_at = EXCLUDED.stored_at
"""

#: Inserts a realm's file versions that begin at `generation`. The lists `paths`, `hashes`, `sizes`
#: and `created` have one element for each version. This is SQL, because for thousands of rows the
#: ORM would take longer to build the statement than Postgres takes to run it.
OPEN_VERSIONS: LiteralString = """
INSERT INTO realms_fileversion
    (realm_id, path, sha256, size, created_at, modified_at, from_generation)
SELECT %(realm)s, path, sha256, size, created_at, %(now)s, %(generation)s
FROM unnest(%(paths)s::text[], %(hashes)s::text[], %(sizes)s::bigint[], %(created)s::timestamptz[])
    AS version(path, sha256, size, created_at)
"""

#: Raises a realm's generation and adjusts its numbers of files and bytes. Returns one row with the
#: three new values. This is SQL, because the ORM would need a second statement to read the values.
#: Processes of an older release may have written files without counting them, so deleting these
#: files could make a number negative. The statement stores 0 instead.
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
# Postgres makes the JSON of a listing, because a listing may have a million files, and Python would
# need more time and memory. The ORM can't express these statements. Each row is a text with up to a
# thousand members of a JSON object. For a folder without files, there is one row with NULL. For a
# missing realm, and for a published realm without a publication at the generation, there is no row.

#: Common table expressions. The last one, `files`, has a realm's files below a folder, at a
#: generation. It leaves out the folders `node_modules` and `.git`, and the files `.realm.json` and
#: `.template-lintrc.js`. If no file is left, `files` has one row of NULLs.
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

#: An expression that escapes `path` as `file_url` does (`reindex/reading/references.py`).
_ESCAPED: LiteralString = r"""
CASE WHEN path ~ '^[][A-Za-z0-9/:@!$&''()+,;=~._|^-]*$' THEN path ELSE (
    SELECT string_agg(CASE WHEN letter ~ '[][A-Za-z0-9/:@!$&''()+,;=~._|^-]' THEN letter
        ELSE regexp_replace(upper(encode(convert_to(letter, 'UTF8'), 'hex')), '(..)', '%%\1', 'g')
        END, '' ORDER BY place)
    FROM regexp_split_to_table(path, '') WITH ORDINALITY AS letters (letter, place)
) END
"""

#: Lists the URLs of files with the times of their last changes.
LIST_TIMES: LiteralString = f"""
WITH {_FILES}
SELECT string_agg(
    to_json(%(url)s || {_ESCAPED})::text || ': ' || extract(epoch FROM modified_at), ', '
    ORDER BY path
) FROM (SELECT *, row_number() OVER (ORDER BY path) / 1000 AS part FROM files) numbered
GROUP BY part ORDER BY part
"""

#: Lists the names of the files and folders directly below a folder, with their times.
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

#: Returns the files of a realm that differ between the generations `then` and `now`. The realm must
#: not be a published realm, because published realms have no files of their own. Each row has a
#: file's path, and the file's hash at `now`. The hash is NULL if `now` has no such file. This is
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
# A pin is a generation of a realm that a job may still read. `pinned` lists the ids of the pins'
# realms, and `pins` lists the generations. These statements are SQL, because the ORM can neither
# expand these lists into rows nor return values of deleted rows.

#: Selects the publications that no pin needs, that were replaced before the time `before`, and that
#: aren't among the `kept` newest publications of their realm.
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

#: Selects the file versions that were closed before the time `before`, and that neither a pin nor a
#: publication needs. Ignores the publications in `dropped`, which a dry run counts as deleted.
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

#: Selects the blobs that were stored before the time `young` and that no file version uses. Ignores
#: the versions in `gone`, which a dry run counts as deleted.
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

#: Deletes the versions that OLD_VERSIONS selects. Returns the `until_generation` of each of them.
DELETE_OLD_VERSIONS: LiteralString = f"""
DELETE FROM realms_fileversion WHERE id IN ({OLD_VERSIONS}) RETURNING until_generation
"""

#: Deletes up to `batch` of the blobs that _OLD_BLOBS selects. Skips blobs that a writer has locked.
#: Returns the hash and size of each deleted blob, and whether the blob storage holds its bytes.
DELETE_OLD_BLOBS: LiteralString = f"""
DELETE FROM realms_blob WHERE sha256 IN (
    {_OLD_BLOBS} ORDER BY b.sha256 LIMIT %(batch)s FOR UPDATE OF b SKIP LOCKED
) RETURNING sha256, size, data IS NULL
"""

#: Returns the size of each blob that _OLD_BLOBS selects.
SIZES_OF_OLD_BLOBS: LiteralString = f"""
SELECT size FROM realms_blob WHERE sha256 IN ({_OLD_BLOBS})
"""

# --- Finished work -----------------------------------------------------------------------------

#: Selects the jobs that ended before a time. Leaves out failed jobs, because they are retried.
_ENDED: LiteralString = """
(SELECT id FROM reindex_reindexjob WHERE status IN ('done', 'superseded', 'cancelled')
    AND finished_at < %(before)s)
"""

#: For each kind of rows, the end of a DELETE or SELECT statement. It chooses the rows that are no
#: longer needed. Cards and batches must precede jobs, because their foreign keys refer to jobs. A
#: job is kept while visitors see its cards or its index. This is SQL, so that one loop can delete
#: or count the rows of all kinds, and so that Postgres computes the keys of modules.
FINISHED_ROWS: dict[str, LiteralString] = {
    "cards": f"FROM reindex_indexedcard t WHERE NOT t.current AND t.job_id IN {_ENDED}",
    "batches": f"FROM reindex_reindexbatch t WHERE t.job_id IN {_ENDED}",
    "jobs": f"""
        FROM reindex_reindexjob t WHERE t.id IN {_ENDED}
        AND NOT EXISTS (SELECT FROM reindex_indexedcard c WHERE c.job_id = t.id AND c.current)
        AND NOT EXISTS (SELECT FROM reindex_indexhead h WHERE h.job_id = t.id)
    """,
    # A module's key is the hash of a text: the source file's hash, followed by the extension.
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
#: This is SQL, because the ORM can't join tables that no foreign key connects.
GENERATIONS_BEHIND: LiteralString = """
SELECT p.name, COALESCE(SUM(GREATEST(r.generation - COALESCE(g.generation, 0), 0)), 0)
FROM notifications_replica p CROSS JOIN realms_realm r
LEFT JOIN notifications_replicageneration g ON g.replica_id = p.name AND g.realm_url = r.url
WHERE p.reported_at > %s GROUP BY p.name
"""

#: Returns one row about the jobs done in the last hour: how many jobs there were, how many cards
#: they rendered, the percentiles of their run times, and the percentiles of their waiting times.
#: `shares` lists the percentiles, such as 0.5. This is SQL, because the ORM has no percentiles.
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

#: Returns one page of a list of realms, or the last page if the requested page doesn't exist. Each
#: row has a realm's id, and the number of realms on all pages. A realm is behind by the number of
#: generations that the slowest reporting replica has yet to apply. The realms that are furthest
#: behind come first. Among equals, realms with outdated pages or a failed last job come first. The
#: list has only realms with `text` in their URL. If `problems` is true, it has only those of them
#: that are behind, or have outdated pages or a failed last job. This is SQL, because the ORM would
#: query each realm separately.
WORST_FIRST: LiteralString = """
WITH reporting AS (
    SELECT name FROM notifications_replica WHERE reported_at > %(fresh)s
), applied AS (
    SELECT g.realm_url, min(g.generation) AS lowest, count(*) AS replicas
    FROM notifications_replicageneration g JOIN reporting ON reporting.name = g.replica_id
    GROUP BY g.realm_url
), failed AS (
    SELECT DISTINCT realm_url FROM reindex_reindexjob j WHERE status = 'failed' AND NOT EXISTS (
        SELECT FROM reindex_reindexjob newer
        WHERE newer.realm_url = j.realm_url AND newer.id > j.id
    )
), judged AS (
    SELECT r.id, r.url,
        CASE WHEN (SELECT count(*) FROM reporting) > coalesce(a.replicas, 0) THEN r.generation
            ELSE greatest(r.generation - a.lowest, 0) END AS behind,
        r.kind = 'published' AND coalesce(h.generation, 0) < r.generation
            OR f.realm_url IS NOT NULL AS pages_behind
    FROM realms_realm r
    LEFT JOIN applied a ON a.realm_url = r.url
    LEFT JOIN reindex_indexhead h ON h.realm_url = r.url
    LEFT JOIN failed f ON f.realm_url = r.url
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
