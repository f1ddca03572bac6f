"""The SQL of this package that the ORM can't say well: what each statement does, and why it is SQL.

`SET LOCAL` stays where it is sent: it is about a transaction, not about data. The conditions of a
search are built from its query in `index/search_sql.py`.
"""

from typing import LiteralString

# --- Turns and messages ------------------------------------------------------------------------
# SQL, because the ORM has neither common table expressions nor unions of different tables' rows
# that can be joined.

#: `held`: the number of leases per owner that have not run out, which stands for the number of the
#: owner's workers. Leases of a superseded job's batches count too, because their workers are busy
#: until they notice; the lease of its plan doesn't. Work that rests after an error counts as well,
#: because its `lease_until` is the end of the rest.
_HELD: LiteralString = """
    lease AS (
        SELECT owner FROM reindex_reindexjob WHERE status = 'queued' AND lease_until > %(now)s
        UNION ALL
        SELECT j.owner FROM reindex_reindexbatch b JOIN reindex_reindexjob j ON j.id = b.job_id
        WHERE NOT b.done AND b.lease_until > %(now)s
        UNION ALL
        SELECT owner FROM reindex_wanteddefinitions WHERE lease_until > %(now)s
    ), held AS (SELECT owner, count(*) AS workers FROM lease GROUP BY owner)
"""

#: `piece`: the work that could be leased now.
_PIECE: LiteralString = """
    piece AS (
        SELECT 'plan' AS kind, id::text AS key, owner, draft AS later,
            coalesce(due_at, created_at) AS since
        FROM reindex_reindexjob
        WHERE status = 'queued' AND (lease_until IS NULL OR lease_until < %(now)s)
            AND (due_at IS NULL OR due_at <= %(now)s OR started_at IS NOT NULL)
        UNION ALL
        SELECT 'batch', b.id::text, j.owner, j.draft, coalesce(j.due_at, j.created_at)
        FROM reindex_reindexbatch b JOIN reindex_reindexjob j ON j.id = b.job_id
        WHERE j.status = 'rendering' AND NOT b.done
            AND (b.lease_until IS NULL OR b.lease_until < %(now)s)
        UNION ALL
        SELECT 'definitions', module_url, owner, true, due_at FROM reindex_wanteddefinitions
        WHERE due_at <= %(now)s AND (lease_until IS NULL OR lease_until < %(now)s)
    )
"""

#: The jobs whose message came before they were due.
_EARLY: LiteralString = """
    status = 'queued' AND started_at IS NULL AND due_at > %(now)s AND sent_at <= %(now)s
"""

#: The pieces of work in the order in which a worker should try them: kind, key, and whether the
#: message of any job came early. An owner's n-th piece is ordered as if the owner had n - 1 more
#: workers: a worker that finds the first piece taken tries another owner's next.
PIECES_IN_TURN: LiteralString = f"""
    WITH {_HELD}, {_PIECE}, line AS (
        SELECT piece.*, later AND since > %(patient)s AS may_wait, row_number() OVER (
            PARTITION BY owner
            ORDER BY later AND since > %(patient)s, later, since, kind, key
        ) AS place
        FROM piece
    )
    SELECT kind, key, EXISTS (SELECT FROM reindex_reindexjob WHERE {_EARLY})
    FROM line LEFT JOIN held USING (owner) LEFT JOIN reindex_ownerusage used USING (owner)
    WHERE place <= %(many)s
    ORDER BY coalesce(workers, 0) + place, may_wait,
        coalesce(seconds * power(0.5, extract(epoch FROM %(now)s - counted_at) / %(half_life)s), 0),
        later, since, kind, key
    LIMIT %(many)s
"""

#: For each kind of piece that no worker holds: how many there are, and since when the first has
#: waited. SQL, as the others here.
WAITING_PIECES: LiteralString = f"""
    WITH {_PIECE} SELECT kind, count(*), min(since) FROM piece GROUP BY kind
"""

#: Whether an owner with fewer workers than `owner` waits, with work that doesn't come later anyway.
OTHERS_WAIT: LiteralString = f"""
    WITH {_HELD}, {_PIECE}
    SELECT EXISTS (
        SELECT FROM piece LEFT JOIN held USING (owner)
        WHERE owner <> %(owner)s AND since < %(waited)s
            AND (%(later)s OR NOT (later AND since > %(patient)s))
            AND coalesce(workers, 0)
                < coalesce((SELECT workers FROM held WHERE owner = %(owner)s), 1)
    )
"""

#: Adds to an owner's worker time, after halving what is stored for its age. SQL, because the ORM's
#: upserts can't compute with the stored value.
ADD_USAGE: LiteralString = """
    INSERT INTO reindex_ownerusage AS used (owner, seconds, counted_at)
    VALUES (%(owner)s, %(seconds)s, %(now)s)
    ON CONFLICT (owner) DO UPDATE SET counted_at = excluded.counted_at, seconds = excluded.seconds
        + used.seconds
            * power(0.5, extract(epoch FROM excluded.counted_at - used.counted_at) / %(half_life)s)
"""

#: Marks the messages that came early as sent anew, and returns when each is due. SQL, because only
#: RETURNING gives each of them to one of several workers.
MARK_AS_SENT: LiteralString = f"""
UPDATE reindex_reindexjob SET sent_at = due_at WHERE {_EARLY} RETURNING due_at
"""

# --- What a job reads --------------------------------------------------------------------------
# SQL, because the ORM can't merge into a JSON object, nor return the result. Several batches of a
# job do this at once, and the first batch that names a key sets its value.

#: Pins a realm for a job, and returns the generation that the job has pinned; no row if there is no
#: such job.
PIN_REALM: LiteralString = """
UPDATE reindex_reindexjob SET pins = jsonb_build_object(%(url)s::text,
    %(generation)s::bigint) || pins WHERE id = %(id)s
RETURNING (pins ->> %(url)s)::bigint
"""

#: Adds the pins in `sought` to a job that has fewer than `most`.
NOTE_MISSING: LiteralString = """
UPDATE reindex_reindexjob SET pins = %(sought)s::jsonb || pins WHERE id = %(id)s
    AND (SELECT count(*) FROM jsonb_object_keys(pins)) < %(most)s
"""

#: Stores the address of a realm's pages for a job, and returns the one that the job has stored; no
#: row if there is no such job.
NOTE_ADDRESS: LiteralString = """
UPDATE reindex_reindexjob SET addresses = jsonb_build_object(%(url)s::text,
    %(address)s::text) || addresses WHERE id = %(id)s
RETURNING addresses ->> %(url)s
"""

#: Takes a realm's lock, shared, in the caller's transaction: so it waits for the realm's writers,
#: who hold it exclusively. SQL, because the ORM has no advisory locks.
WAIT_FOR_WRITERS: LiteralString = "SELECT pg_advisory_xact_lock_shared(%s)"

#: One row: the shown cards that can't be carried over, as an array of paths, and the number of all
#: shown cards. SQL, because of the common table expression that isn't materialized: so each kind is
#: found with a database index of its own. `settled` is the column of `IndexedCard.cacheable`.
CARDS_TO_RENDER: LiteralString = """
WITH shown AS NOT MATERIALIZED (
    SELECT path, settled, made_from FROM reindex_indexedcard
    WHERE realm_url = %(url)s AND current
), stale AS (
    SELECT path FROM shown WHERE made_from && %(keys)s::bigint[]
    UNION SELECT path FROM shown WHERE NOT settled
    UNION SELECT path FROM shown WHERE path = ANY(%(own)s)
)
SELECT (SELECT coalesce(array_agg(path), '{}') FROM stale), (SELECT count(*) FROM shown)
"""

# --- What hangs --------------------------------------------------------------------------------

#: Adds lost time and hanging modules to what a job's row has, and returns the new values; no row if
#: there is no such job. SQL, because the ORM can't merge JSON objects, nor return the result.
LOSE_TIME: LiteralString = """
UPDATE reindex_reindexjob SET lost_seconds = lost_seconds + %(seconds)s, hung = hung || %(hung)s
WHERE id = %(id)s RETURNING lost_seconds, hung
"""

#: Stores a hang, or adds its signs to the stored ones. Signs of one job are not added up: its
#: batches may all have met the same slow replica. SQL, because the ORM's upserts can't compute with
#: the stored value.
REMEMBER_HANG: LiteralString = """
INSERT INTO reindex_hang AS known (key, digest, realm_url, url, error, signs, job_id, seen_at)
VALUES (%(key)s, %(digest)s, %(realm)s, %(url)s, %(error)s, %(signs)s, %(job)s, %(now)s)
ON CONFLICT (key) DO UPDATE SET seen_at = excluded.seen_at, job_id = excluded.job_id,
    signs = CASE WHEN known.job_id = excluded.job_id THEN greatest(known.signs, excluded.signs)
        ELSE known.signs + excluded.signs END
"""

# --- The swap ----------------------------------------------------------------------------------

#: Takes a job's rows as a stream. SQL, because the ORM has no COPY.
COPY_CARDS: LiteralString = """
COPY reindex_indexedcard (job_id, realm_url, path, current, html, html_generation, search, error,
    warnings, render_ms, made_from, settled, strangers) FROM STDIN
"""

#: Makes a job's index the realm's. Changes one row, or none if a newer index is shown, or another
#: than the job's base. SQL, because the ORM's upserts have no condition.
MOVE_HEAD: LiteralString = """
INSERT INTO reindex_indexhead (realm_url, job_id, generation, swapped_at)
VALUES (%(url)s, %(job)s, %(generation)s, %(now)s)
ON CONFLICT (realm_url) DO UPDATE SET job_id = excluded.job_id,
    generation = excluded.generation, swapped_at = excluded.swapped_at
WHERE reindex_indexhead.generation <= excluded.generation
    AND (%(base)s::bigint IS NULL OR reindex_indexhead.job_id = %(base)s)
"""

#: Gives each failed card of a job the HTML that is shown so far. SQL, because the ORM's updates
#: can't join.
KEEP_LAST_GOOD_HTML: LiteralString = """
UPDATE reindex_indexedcard new SET html = old.html, html_generation = old.html_generation,
    strangers = old.strangers
FROM reindex_indexedcard old
WHERE new.job_id = %(job)s AND new.error IS NOT NULL AND new.html IS NULL
    AND old.realm_url = %(url)s AND old.path = new.path AND old.current
"""

#: Deletes the shown rows that a job replaces: those of its batches' files. SQL, because the ORM
#: can't unfold the JSON arrays.
DELETE_REPLACED: LiteralString = """
DELETE FROM reindex_indexedcard WHERE realm_url = %(url)s AND current AND job_id <> %(job)s
    AND path = ANY(ARRAY(
        SELECT regexp_replace(jsonb_array_elements_text(paths), '\\.json$', '')
        FROM reindex_reindexbatch WHERE job_id = %(job)s
    ))
"""

# --- A job's summary ---------------------------------------------------------------------------
# SQL, because the ORM can't unfold JSON arrays, nor cut an aggregated one.

#: A row for each kind of error among a job's cards, the most frequent first: status, title,
#: message, module, causes (JSON text), line, the number of cards, and the paths of the first five.
KINDS_OF_ERROR: LiteralString = """
SELECT error ->> 'status', error ->> 'title', error ->> 'message', error ->> 'module',
    (error -> 'causes')::text, (error ->> 'line')::int, count(*),
    (array_agg(path ORDER BY path))[1:5]
FROM reindex_indexedcard WHERE job_id = %s AND error IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 7 DESC, 3
"""

#: A row for each kind of warning in a realm's index, the most frequent first: message, the number
#: of cards, and the paths of the first five. Includes cards that are carried over.
KINDS_OF_WARNING: LiteralString = """
SELECT w ->> 'message', count(*), (array_agg(path ORDER BY path))[1:5]
FROM reindex_indexedcard, jsonb_array_elements(warnings) w
WHERE realm_url = %s AND current AND warnings IS NOT NULL
GROUP BY 1 ORDER BY 2 DESC, 1
"""

#: A row for each module that the cards of a job adopt from; none before the job is done.
MODULES_OF_CARDS: LiteralString = """
SELECT DISTINCT search -> '_type' ->> 'module' FROM reindex_indexedcard c
JOIN reindex_reindexjob j ON j.id = c.job_id AND j.status = 'done'
WHERE j.id = %s AND search -> '_type' ->> 'module' LIKE 'http%%' ORDER BY 1
"""

#: A row for each replica that a job's batches were read from: its address, the number of batches,
#: and, the same in each row, all replicas that were left out, with the reasons.
REPLICAS_READ: LiteralString = """
SELECT replica, count(*), (SELECT jsonb_object_agg(key, value)
    FROM reindex_reindexbatch a, jsonb_each_text(a.avoided) WHERE a.job_id = %(job)s)
FROM reindex_reindexbatch WHERE job_id = %(job)s AND replica <> '' GROUP BY replica
"""

# --- The shown index ---------------------------------------------------------------------------
# SQL, because one statement is one snapshot: an index and its rows belong together. The ORM can't
# join them, as no foreign key leads from one to the other.

#: The generation of a realm's index, and a card's HTML, error, generation of the HTML, and realms
#: whose code made it, all NULL if there is no such card; no row if the realm has no index.
FIND_PAGE: LiteralString = """
SELECT h.generation, c.html, c.error, c.html_generation, c.strangers
FROM reindex_indexhead h
LEFT JOIN reindex_indexedcard c ON c.realm_url = h.realm_url AND c.path = %s AND c.current
WHERE h.realm_url = %s
"""

#: The generation of a realm's index, and the paths of all cards that have a page; no row if the
#: realm has no index.
PATHS_OF_PAGES: LiteralString = """
SELECT h.generation, ARRAY(
    SELECT c.path FROM reindex_indexedcard c
    WHERE c.realm_url = h.realm_url AND c.current AND c.html IS NOT NULL AND c.error IS NULL
    ORDER BY c.path
) FROM reindex_indexhead h WHERE h.realm_url = %s
"""

# --- Search ------------------------------------------------------------------------------------
# Templates for `psycopg.sql.SQL`: conditions and values take the place of names in braces.

#: The condition that a row `c` belongs to the index that visitors of a realm see.
IS_SHOWN: LiteralString = "c.realm_url = {realm} AND c.current AND c.search IS NOT NULL"

#: The types and fields of one search document per card type. SQL, because of the recursion: it
#: jumps from type to type in the database index `card_by_type`, instead of reading every row.
TYPES_OF_CARDS: LiteralString = """
WITH RECURSIVE kinds(kind) AS (
    (
        SELECT MD5(c.search ->> '_type') FROM reindex_indexedcard c
        WHERE {shown} ORDER BY 1 LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT MD5(c.search ->> '_type') FROM reindex_indexedcard c
        WHERE {shown} AND MD5(c.search ->> '_type') > kinds.kind ORDER BY 1 LIMIT 1
    ) FROM kinds WHERE kinds.kind IS NOT NULL
)
SELECT found.types, found.fields FROM kinds CROSS JOIN LATERAL (
    SELECT c.search -> '_types' AS types, c.search -> '_fields' AS fields
    FROM reindex_indexedcard c WHERE {shown} AND MD5(c.search ->> '_type') = kinds.kind LIMIT 1
) found WHERE kinds.kind IS NOT NULL
"""

#: The generation of a realm's index, the number of hits, and the paths of one page of them; no row
#: if the realm has no index. SQL, because the condition is SQL, and because one statement sees one
#: snapshot.
SEARCH: LiteralString = """
WITH hits AS MATERIALIZED (
    SELECT c.path, row_number() OVER (ORDER BY {order}, c.path) AS place
    FROM reindex_indexedcard c WHERE {shown} AND {condition}
)
SELECT h.generation, (SELECT count(*) FROM hits), ARRAY(
    SELECT path FROM hits WHERE place > {after} AND place <= {until} ORDER BY place
) FROM reindex_indexhead h WHERE h.realm_url = {realm}
"""
