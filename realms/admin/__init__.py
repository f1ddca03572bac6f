"""The admin panel. Django imports this package by its name."""

from realms.admin import definitions, people, registry

__all__ = ["definitions", "people", "registry"]
