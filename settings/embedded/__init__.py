"""A Postgres of the installation's own, started by whoever connects first."""
