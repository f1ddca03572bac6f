"""The admin panel. Django imports this package by its name."""

from realms.admin import people, registry

__all__ = ["people", "registry"]
