#!/usr/bin/env python
"""Runs the server's commands in a clone, for example `manage.py listen_file_changes`."""

from realms.management.entry import main

if __name__ == "__main__":
    main()
