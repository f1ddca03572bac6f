"""Defines a Django app that switches off a mechanism (see broken.py) when all other apps are
ready."""

from django.apps import AppConfig


class BrokenConfig(AppConfig):
    name = "tests.faults"
    label = "faults"

    def ready(self) -> None:
        from tests.faults.broken import switch_off

        switch_off()
