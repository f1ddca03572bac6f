"""Contains this package's SQL statements that the ORM can't express well. The comment on each
statement says what the statement does and why it is SQL.

The trigger that refuses late builds is declared with its model.
"""

from typing import LiteralString

#: Finds the rows of the given modules that have the given scope and reader and have not expired.
#: SQL, because each look-up runs this statement, and the ORM takes longer to compile the statement
#: than Postgres takes to run it.
STORED: LiteralString = """
SELECT module_url, definitions, error, dependencies, realm_urls, scope, built_at, build_ms
FROM definitions
WHERE module_url = ANY(%(urls)s) AND scope = %(scope)s AND reader = %(reader)s
    AND (expires_at IS NULL OR expires_at > %(now)s)
"""

#: Raises the given counters one after another, in the given order. The parameters are a list of
#: scopes and a list of the same number of keys. Creates missing counters, and stores the cause.
#: SQL, because the ORM's upserts can't add to a value or keep an order of locks.
RAISE_COUNTERS: LiteralString = """
INSERT INTO definitions_cachegeneration (scope, key, generation, bumped_at, bumped_by)
SELECT scope, key, 1, now(), %(by)s FROM
    unnest(%(scopes)s::text[], %(keys)s::text[]) WITH ORDINALITY c(scope, key, place) ORDER BY place
ON CONFLICT (scope, key) DO UPDATE
SET generation = definitions_cachegeneration.generation + 1,
    bumped_at = excluded.bumped_at, bumped_by = excluded.bumped_by
"""

#: Returns the scope, key and value of each given counter that exists. SQL, because the ORM can't
#: join a list of pairs.
READ_COUNTERS: LiteralString = """
SELECT g.scope, g.key, g.generation FROM definitions_cachegeneration g
JOIN unnest(%s::text[], %s::text[]) w(scope, key) USING (scope, key)
"""

#: Like READ_COUNTERS, but takes share locks, and skips counters that another transaction is
#: raising. SQL, because the ORM has no share locks.
HOLD_COUNTERS: LiteralString = f"{READ_COUNTERS} FOR SHARE OF g SKIP LOCKED"

#: Finds the rows of the given modules, and all rows that were built from these modules, directly or
#: not. Returns each row's module URL and realm URL. SQL, because the ORM has no recursive queries.
WITH_DEPENDENTS: LiteralString = """
WITH RECURSIVE reached(module_url, realm_url) AS (
    SELECT module_url, realm_url FROM definitions WHERE module_url = ANY(%(urls)s)
    UNION
    SELECT d.module_url, d.realm_url FROM definitions d
    WHERE d.dependencies ?| %(urls)s
    UNION
    SELECT d.module_url, d.realm_url FROM definitions d
    JOIN reached r ON d.dependencies ? r.module_url
) SELECT module_url, realm_url FROM reached
"""
