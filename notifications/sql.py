"""The SQL of this package that the ORM can't say well: what each statement does, and why it is SQL.

`SET` and `LISTEN` stay where they are sent: they are about a connection, not about data.
"""

from typing import LiteralString

# --- Notifications -----------------------------------------------------------------------------

#: Sends notifications, given as a list of channels and a list of payloads. SQL,
#: because the ORM doesn't know pg_notify.
NOTIFY_ALL: LiteralString = """
SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) n(channel, payload)
"""

#: Sends one notification. The listener uses it on its own connection, which isn't Django's.
NOTIFY: LiteralString = "SELECT pg_notify(%s, %s)"

# --- Elections ---------------------------------------------------------------------------------

#: Takes the lease of a key. Changes one row, or none while another holder's lease lasts. SQL,
#: because the ORM's upserts have no condition, and all hosts have to use the database's clock.
TAKE_LEASE: LiteralString = """
INSERT INTO notifications_election AS held (key, holder, lease_until)
VALUES (%(key)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
    WHERE held.lease_until < clock_timestamp()
"""

#: Extends a holder's lease. Changes one row, or none if the holder has lost it. SQL, for the
#: same clock.
RENEW_LEASE: LiteralString = """
UPDATE notifications_election
SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE key = %(key)s AND holder = %(holder)s
"""

#: Ends a holder's lease. Changes one row, or none if the holder has lost it. SQL, as the two
#: above.
END_LEASE: LiteralString = """
DELETE FROM notifications_election WHERE key = %(key)s AND holder = %(holder)s
"""

# --- Reports -----------------------------------------------------------------------------------

#: One row: the time on the database's clock. SQL, because the ORM only reads it beside the rows of
#: a table.
DATABASE_TIME: LiteralString = "SELECT now()"
