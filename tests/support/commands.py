"""Runs management commands in the test's own process."""

from io import StringIO
from typing import Any

from django.core.management import call_command


def run(command: str, *arguments: object, **options: Any) -> str:
    """Runs a command and returns its standard output."""
    out = StringIO()
    call_command(command, *map(str, arguments), stdout=out, stderr=StringIO(), **options)
    return out.getvalue()
