"""Django's Postgres backend, connected to the embedded server."""

from typing import Any

from django.conf import settings
from django.db.backends.postgresql import base

from settings.embedded.server import socket_folder


class DatabaseWrapper(base.DatabaseWrapper):
    """Starts the server at the first connection. Importing the settings starts nothing."""

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        return {**params, "host": str(socket_folder(settings.DATA_DIR))}
