"""The entry of all commands: `manage.py` in a clone, `realm-server` in an installation."""

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    """Runs the management command that the command line names."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    execute_from_command_line(sys.argv)
