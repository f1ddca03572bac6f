"""A version of Django's Postgres backend that connects to the embedded Postgres."""

from typing import Any

from django.conf import settings
from django.db.backends.postgresql import base

from settings.embedded.server import socket_folder


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to the embedded Postgres. The first connection starts the Postgres server.
    Importing the settings doesn't start the server."""

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        return {**params, "host": str(socket_folder(settings.DATA_DIR))}
