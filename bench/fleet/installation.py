"""Makes a new installation of the project for a measurement: the tables in the database of a
Postgres server, and a data folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.fleet.postgres import Server

ORIGIN = "http://localhost:4201"


@contextmanager
def installation(server: Server, **environment: str) -> Iterator[Path]:
    """Sets up Django for the database of `server`, makes the tables, installs the card library, and
    yields the data folder. `environment` has further environment variables. A process can call this
    function only once, because Django can be set up only once."""
    with tempfile.TemporaryDirectory(prefix="realm-scale-") as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "settings",
            "DATABASE_URL": server.url(),
            "REALM_DATA_DIR": folder,
            "REALM_PUBLIC_ORIGIN": ORIGIN,
            "REALM_LOG_LEVEL": "ERROR",
            **environment,
        }
        import django
        from django.core.management import call_command
        from django.db import connection

        django.setup()
        from realms.publishing.bootstrap import sync_base_realm

        call_command("migrate", verbosity=0)
        sync_base_realm()
        try:
            yield Path(folder)
        finally:
            connection.close()
