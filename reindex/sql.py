"""The SQL statements of this package that the ORM can't express well.

The comment above a statement says what the statement does. The same comment, or the comment of the
section, says why the statement is SQL. `SET LOCAL` statements stay in the code that sends them,
because they configure a transaction and read no data. `index/search_sql.py` builds the conditions
of a search from the search query.
"""

from typing import LiteralString

# --- Turns and messages ------------------------------------------------------------------------
# A piece of work is the planning of a job, a batch of a job's cards, or the building of a module's
# definitions. An owner is a user who owns realms. `jobs/turns.py` says in which order workers do
# the pieces of all owners. PIECES_IN_TURN, WAITING_PIECES and OTHERS_WAIT are SQL, because the ORM
# has no common table expressions and can't join a union of several tables.

#: The common table expression `held` has the number of workers of each owner. Each `lease_until` in
#: the future counts as one worker. A job's own lease counts only while the job is queued. The lease
#: of a batch counts even if the job was superseded, because a worker still renders the batch. A
#: piece that is postponed or waits for a retry also counts as one worker, because its `lease_until`
#: is the time of its next attempt.
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

#: The common table expression `piece` lists the pieces of work that a worker could lease now.
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

#: The condition that a job isn't due yet, although its message has been delivered to wake a worker.
#: A write to the realm can delay a job after the job's message was sent.
_EARLY: LiteralString = """
    status = 'queued' AND started_at IS NULL AND due_at > %(now)s AND sent_at <= %(now)s
"""

#: Returns pieces of work, in the order in which a worker tries to lease the pieces. The columns are
#: the kind, the key, and whether any job meets the condition `_EARLY`. Each owner's pieces are
#: numbered 1, 2, and so on. The rank of a piece is this number plus the number of the owner's
#: workers, and lower ranks come first. So if two owners have the same number of workers, their
#: pieces alternate.
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

#: Returns a row for each kind of work that waits for a worker: plans, batches and definitions. The
#: columns are the kind, the number of waiting pieces, and the time when the oldest of these pieces
#: became due.
WAITING_PIECES: LiteralString = f"""
    WITH {_PIECE} SELECT kind, count(*), min(since) FROM piece GROUP BY kind
"""

#: Returns whether work waits for an owner who has fewer workers than `owner`. Work counts only if
#: it became due before the time `waited`. `later` is true if the caller is working on a draft or on
#: definitions. If `later` is false, drafts and definitions count only if they became due before the
#: time `patient`.
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

#: Adds seconds to the worker time that an owner has used. Before that, halves the stored time once
#: for each half-life since the last update, so that old usage counts less. The statement is SQL,
#: because the ORM's upserts can't compute with the stored value.
ADD_USAGE: LiteralString = """
    INSERT INTO reindex_ownerusage AS used (owner, seconds, counted_at)
    VALUES (%(owner)s, %(seconds)s, %(now)s)
    ON CONFLICT (owner) DO UPDATE SET counted_at = excluded.counted_at, seconds = excluded.seconds
        + used.seconds
            * power(0.5, extract(epoch FROM excluded.counted_at - used.counted_at) / %(half_life)s)
"""

#: For each job that meets the condition `_EARLY`, records that a message will be delivered when the
#: job is due, and returns the due time. The caller sends the messages. If several workers run the
#: statement at the same time, only one of them gets a job's row and sends the job's message. The
#: statement is SQL, because the ORM's updates return no rows.
MARK_AS_SENT: LiteralString = f"""
UPDATE reindex_reindexjob SET sent_at = due_at WHERE {_EARLY} RETURNING due_at
"""

# --- What a job reads --------------------------------------------------------------------------
# A job reads each realm at one generation, and the column `pins` maps the realm's URL to this
# generation. PIN_REALM, NOTE_MISSING and NOTE_ADDRESS are SQL, because the ORM can neither merge
# JSON objects nor return the updated row. Batches of a job run these statements concurrently. If
# several batches write the same key, the first value stays.

#: Pins a realm for a job, unless the job has pinned it already, and returns the pinned generation.
#: Returns no row if the job doesn't exist.
PIN_REALM: LiteralString = """
UPDATE reindex_reindexjob SET pins = jsonb_build_object(%(url)s::text,
    %(generation)s::bigint) || pins WHERE id = %(id)s
RETURNING (pins ->> %(url)s)::bigint
"""

#: Adds the JSON object `sought` to the pins of a job. `sought` has the missing realms that the job
#: has looked for. The job's existing pins stay unchanged. Does nothing if the job has `most` pins
#: or more.
NOTE_MISSING: LiteralString = """
UPDATE reindex_reindexjob SET pins = %(sought)s::jsonb || pins WHERE id = %(id)s
    AND (SELECT count(*) FROM jsonb_object_keys(pins)) < %(most)s
"""

#: Stores the address of a realm's pages for a job, unless the job's row has an address of the realm
#: already. Returns the stored address. Returns no row if the job doesn't exist.
NOTE_ADDRESS: LiteralString = """
UPDATE reindex_reindexjob SET addresses = jsonb_build_object(%(url)s::text,
    %(address)s::text) || addresses WHERE id = %(id)s
RETURNING addresses ->> %(url)s
"""

#: Takes the advisory lock of a realm, or of the realm's published address, in shared mode. A
#: transaction that changes the realm or the address holds this lock in exclusive mode. So the
#: statement waits until no such transaction is left. The statement is SQL, because the ORM has no
#: advisory locks.
WAIT_FOR_WRITERS: LiteralString = "SELECT pg_advisory_xact_lock_shared(%s)"

#: Finds the cards that a job must render again. The job carries the other cards over, which means
#: that their rows stay in the index that visitors see. Returns one row. The columns are an
#: array with the paths of the cards to render, and the number of all cards that visitors see. The
#: statement is SQL, because the ORM has no common table expressions. NOT MATERIALIZED lets each
#: part of the union use its own database index. The model's name for the column `settled` is
#: `IndexedCard.cacheable`.
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

#: Adds to a job's row the seconds that hanging cards have cost, and the modules that hang. Returns
#: the new values, or no row if the job doesn't exist. The statement is SQL, because the ORM can
#: neither merge JSON objects nor return the updated row.
LOSE_TIME: LiteralString = """
UPDATE reindex_reindexjob SET lost_seconds = lost_seconds + %(seconds)s, hung = hung || %(hung)s
WHERE id = %(id)s RETURNING lost_seconds, hung
"""

#: Records that a card or module hung. The parameter `signs` says how strongly this hang proves that
#: the card or module is at fault (see PROOF in `prerender/hangs.py`). If the card or module has no
#: row, inserts a row with `signs`. If the row was last written for another job, adds `signs` to the
#: stored number. If the row was last written for the same job, stores the larger one of `signs` and
#: the stored number. A second hang in the same job is no further proof, because one slow replica
#: may have delayed all batches of the job. The statement is SQL, because the ORM's upserts can't
#: compute with the stored value.
REMEMBER_HANG: LiteralString = """
INSERT INTO reindex_hang AS known (key, digest, realm_url, url, error, signs, job_id, seen_at)
VALUES (%(key)s, %(digest)s, %(realm)s, %(url)s, %(error)s, %(signs)s, %(job)s, %(now)s)
ON CONFLICT (key) DO UPDATE SET seen_at = excluded.seen_at, job_id = excluded.job_id,
    signs = CASE WHEN known.job_id = excluded.job_id THEN greatest(known.signs, excluded.signs)
        ELSE known.signs + excluded.signs END
"""

# --- The swap ----------------------------------------------------------------------------------
# The swap is the transaction that shows a job's index to the visitors of a realm. In the rows that
# visitors see, `current` is true. A realm's index head says which job made the index that visitors
# see, and at which generation.

#: Inserts rows for the cards that a job has rendered. The caller streams the rows. The statement is
#: SQL, because the ORM has no COPY.
COPY_CARDS: LiteralString = """
COPY reindex_indexedcard (job_id, realm_url, path, current, html, html_generation, search, error,
    warnings, render_ms, made_from, settled, strangers) FROM STDIN
"""

#: Makes a job's index the one that visitors of the realm see. Changes no row if visitors see the
#: index of a newer generation. `base` is the job that made the index from which this job carries
#: cards over, or NULL if there is no such job. If `base` isn't NULL and visitors no longer see the
#: index of `base`, changes no row. The statement is SQL, because the ORM's upserts have no
#: condition.
MOVE_HEAD: LiteralString = """
INSERT INTO reindex_indexhead (realm_url, job_id, generation, swapped_at)
VALUES (%(url)s, %(job)s, %(generation)s, %(now)s)
ON CONFLICT (realm_url) DO UPDATE SET job_id = excluded.job_id,
    generation = excluded.generation, swapped_at = excluded.swapped_at
WHERE reindex_indexhead.generation <= excluded.generation
    AND (%(base)s::bigint IS NULL OR reindex_indexhead.job_id = %(base)s)
"""

#: If a card failed in a job, copies the HTML that visitors see at present to the card's new row.
#: The statement is SQL, because the ORM's updates can't join.
KEEP_LAST_GOOD_HTML: LiteralString = """
UPDATE reindex_indexedcard new SET html = old.html, html_generation = old.html_generation,
    strangers = old.strangers
FROM reindex_indexedcard old
WHERE new.job_id = %(job)s AND new.error IS NOT NULL AND new.html IS NULL
    AND old.realm_url = %(url)s AND old.path = new.path AND old.current
"""

#: Deletes the current rows of the files in a job's batches. The rows that the job made replace
#: them. If a file was deleted, its row has no replacement. The statement is SQL, because the ORM
#: can't expand JSON arrays into rows.
DELETE_REPLACED: LiteralString = """
DELETE FROM reindex_indexedcard WHERE realm_url = %(url)s AND current AND job_id <> %(job)s
    AND path = ANY(ARRAY(
        SELECT regexp_replace(jsonb_array_elements_text(paths), '\\.json$', '')
        FROM reindex_reindexbatch WHERE job_id = %(job)s
    ))
"""

# --- A job's summary ---------------------------------------------------------------------------
# KINDS_OF_ERROR, KINDS_OF_WARNING and REPLICAS_READ are SQL, because the ORM can neither expand
# JSON into rows nor slice an aggregated array. Only MODULES_OF_CARDS could be written with the ORM.

#: Returns a row for each kind of error among a job's cards, the most frequent first. The columns
#: are status, title, message, module, causes (JSON text), line, the number of cards, and the paths
#: of the first five cards.
KINDS_OF_ERROR: LiteralString = """
SELECT error ->> 'status', error ->> 'title', error ->> 'message', error ->> 'module',
    (error -> 'causes')::text, (error ->> 'line')::int, count(*),
    (array_agg(path ORDER BY path))[1:5]
FROM reindex_indexedcard WHERE job_id = %s AND error IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 7 DESC, 3
"""

#: Returns a row for each kind of warning in a realm's index, the most frequent first. The columns
#: are the message, the number of warnings, and the paths of the first five cards. The cards that
#: the last job carried over count too.
KINDS_OF_WARNING: LiteralString = """
SELECT w ->> 'message', count(*), (array_agg(path ORDER BY path))[1:5]
FROM reindex_indexedcard, jsonb_array_elements(warnings) w
WHERE realm_url = %s AND current AND warnings IS NOT NULL
GROUP BY 1 ORDER BY 2 DESC, 1
"""

#: Returns the URLs of the modules that define the types of a job's rendered cards. Returns no row
#: before the job is done.
MODULES_OF_CARDS: LiteralString = """
SELECT DISTINCT search -> '_type' ->> 'module' FROM reindex_indexedcard c
JOIN reindex_reindexjob j ON j.id = c.job_id AND j.status = 'done'
WHERE j.id = %s AND search -> '_type' ->> 'module' LIKE 'http%%' ORDER BY 1
"""

#: Returns a row for each replica from which a job's batches read files. The columns are the
#: replica's address, the number of batches, and a JSON object. The object is the same in every row.
#: Its keys are the addresses of the replicas that failed shortly before or during the job, and its
#: values are the reasons.
REPLICAS_READ: LiteralString = """
SELECT replica, count(*), (SELECT jsonb_object_agg(key, value)
    FROM reindex_reindexbatch a, jsonb_each_text(a.avoided) WHERE a.job_id = %(job)s)
FROM reindex_reindexbatch WHERE job_id = %(job)s AND replica <> '' GROUP BY replica
"""

# --- The shown index ---------------------------------------------------------------------------
# FIND_PAGE and PATHS_OF_PAGES each read a realm's index head (see "The swap") and the rows of the
# index in one query. If two queries read them, a swap in between could combine the head of one
# index with the rows of another. The statements are SQL, because the ORM joins only along foreign
# keys, and no foreign key connects the two tables by realm.

#: Finds a card's page in the index that visitors see. The columns are the generation of the index,
#: the card's HTML, the card's error, the generation of the HTML, and `strangers`. `strangers` has
#: the URLs of the other realms that supplied code for the rendering of the HTML. If the card
#: doesn't exist, all columns except the first are NULL. Returns no row if the realm has no index.
FIND_PAGE: LiteralString = """
SELECT h.generation, c.html, c.error, c.html_generation, c.strangers
FROM reindex_indexhead h
LEFT JOIN reindex_indexedcard c ON c.realm_url = h.realm_url AND c.path = %s AND c.current
WHERE h.realm_url = %s
"""

#: Returns the generation of a realm's index, and the paths of all cards that have a page and no
#: error. Returns no row if the realm has no index.
PATHS_OF_PAGES: LiteralString = """
SELECT h.generation, ARRAY(
    SELECT c.path FROM reindex_indexedcard c
    WHERE c.realm_url = h.realm_url AND c.current AND c.html IS NOT NULL AND c.error IS NULL
    ORDER BY c.path
) FROM reindex_indexhead h WHERE h.realm_url = %s
"""

# --- Search ------------------------------------------------------------------------------------
# The strings below are templates for `psycopg.sql.SQL`, which replaces the names in braces by
# conditions and values.

#: The condition that a row `c` belongs to the index that visitors of a realm see, and has a search
#: document. A card with an error has no search document.
IS_SHOWN: LiteralString = "c.realm_url = {realm} AND c.current AND c.search IS NOT NULL"

#: Returns a row for each card type in a realm's index. The columns are the keys of the card type
#: and of the types that it extends, and the searchable fields. Both columns come from the search
#: document of one card of the type. The statement is SQL, because the ORM has no recursion. Each
#: step of the recursion finds the next card type in the database index `card_by_type`, so not every
#: row is read.
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

#: Returns the generation of a realm's index, the number of hits, and the paths of one page of hits.
#: Returns no row if the realm has no index. One statement reads the generation and the hits, so
#: both come from the same snapshot. The statement is SQL, because `index/search_sql.py` builds the
#: condition as SQL.
SEARCH: LiteralString = """
WITH hits AS MATERIALIZED (
    SELECT c.path, row_number() OVER (ORDER BY {order}, c.path) AS place
    FROM reindex_indexedcard c WHERE {shown} AND {condition}
)
SELECT h.generation, (SELECT count(*) FROM hits), ARRAY(
    SELECT path FROM hits WHERE place > {after} AND place <= {until} ORDER BY place
) FROM reindex_indexhead h WHERE h.realm_url = {realm}
"""
