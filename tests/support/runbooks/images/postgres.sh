#!/bin/bash
# Starts Postgres as the official Postgres image does. At the first start, a temporary server makes
# the database. The temporary server answers only at the Unix socket. A health check that connected
# to the socket would succeed too early, while only the temporary server runs.
set -euo pipefail
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
  install --directory --owner postgres --group postgres --mode 0700 "$PGDATA"
  echo "$POSTGRES_PASSWORD" | install --owner postgres --mode 0600 /dev/stdin /run/postgresql/first
  as_postgres initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile /run/postgresql/first \
    --auth-local trust --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8
  rm /run/postgresql/first
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  as_postgres pg_ctl --pgdata "$PGDATA" --wait --options "-c listen_addresses=''" start
  # Simulates a slow disk. The pause is longer than two intervals of the health check, so at least
  # two checks happen while only the temporary server runs.
  sleep 5
  as_postgres createdb --username "$POSTGRES_USER" "$POSTGRES_DB"
  as_postgres pg_ctl --pgdata "$PGDATA" --wait stop
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -D "$PGDATA" -c "listen_addresses=*"
