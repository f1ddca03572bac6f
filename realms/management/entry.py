"""Contains `main`, which runs all commands. In a clone, `manage.py` calls `main`. In an
installation, the program `realm-server` calls it."""

import os
import sys

from django.core.management import execute_from_command_line

#: The command that runs the sidecar, the process that tells the caches of a web service which files
#: have changed. The sidecar runs until it is stopped, and prints nothing but its log.
SIDECAR = "listen_file_changes"


def main() -> None:
    """Runs the management command that the command line names."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    if SIDECAR not in sys.argv[1:2]:
        # All other commands print what they do. Log lines below WARNING would only repeat this.
        os.environ.setdefault("REALM_LOG_LEVEL", "WARNING")
    execute_from_command_line(sys.argv)
