"""Contains this package's SQL statements that the ORM can't express well. The comment on each
statement says what the statement does and why it is SQL.

`models.py` has the SQL of the trigger that refuses the rows of outdated builds.
"""

from typing import LiteralString

#: Finds the rows of the given modules that have the given scope and reader and have not expired.
#: This is SQL, because each look-up runs the statement, and the ORM would take longer to compile
#: the statement than Postgres takes to run it.
STORED: LiteralString = """
SELECT module_url, definitions, error, dependencies, realm_urls, scope, built_at, build_ms
FROM definitions
WHERE module_url = ANY(%(urls)s) AND scope = %(scope)s AND reader = %(reader)s
    AND (expires_at IS NULL OR expires_at > %(now)s)
"""

#: Raises the given counters one after another, in the given order, and creates missing counters.
#: The parameters are a list of the counters' scopes, a list of their keys, and the cause `by`, a
#: text that tells people why the counters are raised. This is SQL, because an upsert of the ORM
#: can't add to the value of a row, and doesn't lock rows in a certain order.
RAISE_COUNTERS: LiteralString = """
INSERT INTO definitions_cachegeneration (scope, key, generation, bumped_at, bumped_by)
SELECT scope, key, 1, now(), %(by)s FROM
    unnest(%(scopes)s::text[], %(keys)s::text[]) WITH ORDINALITY c(scope, key, place) ORDER BY place
ON CONFLICT (scope, key) DO UPDATE
SET generation = definitions_cachegeneration.generation + 1,
    bumped_at = excluded.bumped_at, bumped_by = excluded.bumped_by
"""

#: Returns the scope, key and value of each given counter that exists. This is SQL, because the ORM
#: can't join a table with a list of pairs.
READ_COUNTERS: LiteralString = """
SELECT g.scope, g.key, g.generation FROM definitions_cachegeneration g
JOIN unnest(%s::text[], %s::text[]) w(scope, key) USING (scope, key)
"""

#: Returns the same as READ_COUNTERS, without the counters that another transaction is raising.
#: Takes share locks on the returned counters. This is SQL, because the ORM has no share locks.
HOLD_COUNTERS: LiteralString = f"{READ_COUNTERS} FOR SHARE OF g SKIP LOCKED"

#: Finds the rows of the given modules, and all rows that were built from these modules, directly or
#: through other modules. Returns each row's module URL and realm URL. This is SQL, because the ORM
#: has no recursive queries.
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
