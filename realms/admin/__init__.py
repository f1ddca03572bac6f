"""The admin panel. Django imports this package by its name."""

from realms.admin import registry

__all__ = ["registry"]
