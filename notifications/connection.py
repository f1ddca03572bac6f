"""A listener's own database connections, in autocommit mode. They are never Django's."""

from typing import Any

import psycopg
from django.conf import settings
from django.db import connections


def listen_connection() -> "psycopg.Connection[tuple[Any, ...]]":
    """Connects to LISTEN_DATABASE_URL, or if that is empty, to the default database.

    Raises psycopg.Error when the server can't be reached.
    """
    if settings.LISTEN_DATABASE_URL:
        return psycopg.connect(
            settings.LISTEN_DATABASE_URL,
            autocommit=True,
            connect_timeout=5,
            application_name=_name(),
        )
    return ping_connection()


def ping_connection() -> "psycopg.Connection[tuple[Any, ...]]":
    """Connects to the default database as the web service does, perhaps through a pooler.

    Raises psycopg.Error when the server can't be reached.
    """
    parameters = connections["default"].get_connection_params()
    for django_only in ("cursor_factory", "context", "server_side_binding"):
        parameters.pop(django_only, None)
    own = {"autocommit": True, "application_name": _name(), "prepare_threshold": None}
    return psycopg.connect(**{**parameters, **own})


def _name() -> str:
    return f"listen_file_changes {settings.REALM_REPLICA}"
