"""The admin panel. Django finds it by this package's name."""

from realms.admin import registry

__all__ = ["registry"]
