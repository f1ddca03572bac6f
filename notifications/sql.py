"""The SQL statements of this package, each with the reason why it doesn't use the ORM.

`SET` and `LISTEN` statements are not here, because they configure a connection.
"""

from typing import LiteralString

# --- Notifications -----------------------------------------------------------------------------

#: Sends notifications. Takes a list of channels and a list of payloads. SQL, because the ORM has no
#: pg_notify.
NOTIFY_ALL: LiteralString = """
SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) n(channel, payload)
"""

#: Sends one notification. SQL, because the listener's connection isn't Django's.
NOTIFY: LiteralString = "SELECT pg_notify(%s, %s)"

# --- Elections ---------------------------------------------------------------------------------

#: Takes the lease of a key. Changes one row, or none while another holder's lease lasts. SQL,
#: because the ORM's upserts have no condition, and leases need the database's clock.
TAKE_LEASE: LiteralString = """
INSERT INTO notifications_election AS held (key, holder, lease_until)
VALUES (%(key)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
    WHERE held.lease_until < clock_timestamp()
"""

#: Extends a holder's lease. Changes one row, or none if the holder has lost the lease. SQL, because
#: leases need the database's clock.
RENEW_LEASE: LiteralString = """
UPDATE notifications_election
SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE key = %(key)s AND holder = %(holder)s
"""

#: Ends a holder's lease. Deletes one row, or none if the holder has lost the lease. One
#: function runs TAKE_LEASE, RENEW_LEASE and END_LEASE, so END_LEASE is SQL like the others.
END_LEASE: LiteralString = """
DELETE FROM notifications_election WHERE key = %(key)s AND holder = %(holder)s
"""

# --- Reports -----------------------------------------------------------------------------------

#: Returns one row with the time on the database's clock. SQL, because the ORM can't query the time
#: without a table.
DATABASE_TIME: LiteralString = "SELECT now()"
