"""Defines the types that the lookup of definitions returns, and the interface of the lookup's
builder."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from definitions.models import CacheGeneration, Definition

Document: TypeAlias = dict[str, Any]
Scope = CacheGeneration.Scope
#: A counter's scope and key.
Counter: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class CodeRef:
    """A reference to an export of a module."""

    module: str
    name: str


@dataclass(frozen=True)
class DefinitionCacheEntry:
    """The definitions of a module by export name, or the error of the last build of the module.

    The definitions were built from files of the realms in `realms`. A user may see the definitions
    only if the user may read all of these realms.
    """

    module_url: str
    definitions: Mapping[str, Document] | None
    error: Document | None
    dependencies: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()
    scope: str = Definition.Scope.PUBLIC
    built_at: datetime | None = None
    build_ms: int = 0


DefinitionCacheEntries: TypeAlias = dict[str, DefinitionCacheEntry]


@dataclass(frozen=True)
class DefinitionCacheEntryQuery:
    """The modules, scope and reader of the entries to fetch with one query."""

    module_urls: tuple[str, ...]
    scope: str = Definition.Scope.PUBLIC
    reader: str = ""


@dataclass(frozen=True)
class ModuleLocation:
    """A module's canonical URL, its realm, and that realm's current generation. `dependencies` are
    the modules that the module imports, directly or not. `realms` are the other realms that contain
    these modules. `private` is true if the module's realm or one of `realms` isn't public."""

    module_url: str
    realm_url: str
    generation: int
    dependencies: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()
    private: bool = False

    @property
    def all_realms(self) -> set[str]:
        """The module's own realm and the realms of its dependencies."""
        return {self.realm_url, *self.realms}

    @property
    def counters(self) -> set[Counter]:
        """Every counter that an invalidation of the module or of its dependencies would raise."""
        return {
            (Scope.GLOBAL.value, ""),
            *((Scope.REALM.value, realm) for realm in self.all_realms),
            *((Scope.MODULE.value, module) for module in (self.module_url, *self.dependencies)),
        }


@dataclass(frozen=True)
class BuildResult:
    """The result of building a module's definitions. `dependencies` are the modules that the build
    read besides the module itself. `realms` are the realms that the build read besides the module's
    own realm. `private` is true if the build read a realm that isn't public."""

    definitions: Mapping[str, Document] | None
    error: Document | None
    dependencies: tuple[str, ...]
    realms: tuple[str, ...] = ()
    private: bool = False


class Builder(Protocol):
    """Builds definitions of modules with the rights of one reader. A call reads at least everything
    that was committed when the call began."""

    def locate(self, module_url: str) -> ModuleLocation | None:
        """Finds a module in the registry. Returns None if the module doesn't exist."""

    def build(self, located: ModuleLocation) -> BuildResult:
        """Builds the module's definitions at exactly the generation in `located`."""


class DefinitionNotFound(LookupError):
    """{module} exports no card named {name}"""

    def __init__(self, ref: CodeRef, error: Document | None = None) -> None:
        self.error = error
        super().__init__((type(self).__doc__ or "").format(module=ref.module, name=ref.name))
