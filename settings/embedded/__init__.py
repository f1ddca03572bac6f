"""An embedded Postgres for one installation. The first process that connects starts the Postgres
server."""
