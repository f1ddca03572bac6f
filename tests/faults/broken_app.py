"""A Django app that switches off a mechanism when all other apps are loaded (see broken.py)."""

from django.apps import AppConfig


class BrokenConfig(AppConfig):
    name = "tests.faults"
    label = "faults"

    def ready(self) -> None:
        from tests.faults.broken import switch_off

        switch_off()
