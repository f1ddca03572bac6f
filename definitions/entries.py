"""Defines the types that the lookup of definitions (`lookup.py`) takes and returns, and the
interface of the builder that the lookup uses. A definition describes a card type that a module
exports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from definitions.models import CacheGeneration, Definition

Document: TypeAlias = dict[str, Any]
Scope = CacheGeneration.Scope
#: The scope and key of a counter (`CacheGeneration`). Each invalidation of definitions raises
#: counters.
Counter: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class CodeRef:
    """A reference to an export of a module."""

    module: str
    name: str


@dataclass(frozen=True)
class DefinitionCacheEntry:
    """The definitions of a module by export name. If their build failed, only its error.

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
    """Selects the entries of some modules with one scope and one reader. `reader` is the key of the
    user for whom the definitions were built. `reader` is empty in the scope `public`."""

    module_urls: tuple[str, ...]
    scope: str = Definition.Scope.PUBLIC
    reader: str = ""


@dataclass(frozen=True)
class ModuleLocation:
    """A module's URL with its extension, the realm of the module, and the realm's current
    generation. `dependencies` are the URLs that the module imports, directly or through other
    modules. They include URLs of missing files. `realms` are the other realms that a build of the
    module reads. `private` is true if the module's realm or one of `realms` isn't public."""

    module_url: str
    realm_url: str
    generation: int
    dependencies: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()
    private: bool = False

    @property
    def all_realms(self) -> set[str]:
        """The module's own realm and the other realms that a build reads."""
        return {self.realm_url, *self.realms}

    @property
    def counters(self) -> set[Counter]:
        """The counters on which the module's definitions depend. If one of these counters is
        raised, the definitions may be outdated."""
        return {
            (Scope.GLOBAL.value, ""),
            *((Scope.REALM.value, realm) for realm in self.all_realms),
            *((Scope.MODULE.value, module) for module in (self.module_url, *self.dependencies)),
        }


@dataclass(frozen=True)
class BuildResult:
    """The result of building a module's definitions. `dependencies` are the URLs of the other
    modules that the build read or found missing. `realms` are the realms that the build read
    besides the module's own realm. `private` is true if the build read a realm that isn't
    public. `worth_repeating` is true if the build found a few imports with computed names, and all
    of them lead to modules. A second build, which knows these imports, can be stored."""

    definitions: Mapping[str, Document] | None
    error: Document | None
    dependencies: tuple[str, ...]
    realms: tuple[str, ...] = ()
    private: bool = False
    worth_repeating: bool = False


class Builder(Protocol):
    """Builds definitions of modules with the rights of one user, or from public realms only."""

    def locate(self, module_url: str) -> ModuleLocation | None:
        """Finds a module and its imports. The result includes all changes that were committed
        before the call. Returns None if the module doesn't exist or may not be read."""

    def build(self, located: ModuleLocation) -> BuildResult:
        """Builds the module's definitions. Reads the module's realm at exactly the generation in
        `located`, and each other realm at its current generation."""


class DefinitionNotFound(LookupError):
    """{module} exports no card named {name}"""

    def __init__(self, ref: CodeRef, error: Document | None = None) -> None:
        self.error = error
        super().__init__((type(self).__doc__ or "").format(module=ref.module, name=ref.name))
