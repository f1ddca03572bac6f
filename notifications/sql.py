"""The SQL statements of this package, each with the reason why it isn't a query of Django's ORM.

The `LISTEN` statements are in `listener.py`, because they configure a connection.
"""

from typing import LiteralString

# --- Notifications -----------------------------------------------------------------------------

#: Sends notifications. Takes a list of channels and a list of their payloads. This is SQL, because
#: the ORM has no pg_notify.
NOTIFY_ALL: LiteralString = """
SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) n(channel, payload)
"""

#: Sends one notification. This is SQL, because the listener's connection isn't Django's.
NOTIFY: LiteralString = "SELECT pg_notify(%s, %s)"

# --- Elections ---------------------------------------------------------------------------------

#: Takes a lease for a process (`election.py`). `key` identifies the work that the lease is for.
#: `holder` is a random number that identifies the process. Inserts or updates one row. Changes no
#: row while an earlier lease for the key lasts. This is SQL, because the ORM's upserts have no
#: condition.
TAKE_LEASE: LiteralString = """
INSERT INTO notifications_election AS held (key, holder, lease_until)
VALUES (%(key)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
    WHERE held.lease_until < clock_timestamp()
"""

#: Extends a holder's lease. Updates one row, or none if the holder has lost the lease. This is SQL,
#: because one function runs TAKE_LEASE, RENEW_LEASE and END_LEASE (`election._ask`).
RENEW_LEASE: LiteralString = """
UPDATE notifications_election
SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE key = %(key)s AND holder = %(holder)s
"""

#: Ends a holder's lease. Deletes one row, or none if the holder has lost the lease. This is SQL for
#: the same reason as RENEW_LEASE.
END_LEASE: LiteralString = """
DELETE FROM notifications_election WHERE key = %(key)s AND holder = %(holder)s
"""

# --- Reports -----------------------------------------------------------------------------------

#: Returns one row with the time on the database's clock. This is SQL, because the ORM can't query
#: the time without a table.
DATABASE_TIME: LiteralString = "SELECT now()"
