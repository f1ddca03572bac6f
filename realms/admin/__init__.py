"""Defines the admin's pages of realms, definitions and users. Django finds this package by its
name."""

from realms.admin import definitions, people, registry

__all__ = ["definitions", "people", "registry"]
