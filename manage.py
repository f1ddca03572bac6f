#!/usr/bin/env python
"""Django's command-line entry: `manage.py realms`, `manage.py listen_file_changes`, ..."""

from realms.management.entry import main

if __name__ == "__main__":
    main()
