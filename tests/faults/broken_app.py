"""The application that breaks a mechanism once all others are there (see broken.py)."""

from django.apps import AppConfig


class BrokenConfig(AppConfig):
    name = "tests.faults"
    label = "faults"

    def ready(self) -> None:
        from tests.faults.broken import switch_off

        switch_off()
