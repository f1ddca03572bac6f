"""Defines the admin's pages of definitions.

Definitions describe what a module exports. A row of the table holds the definitions of one module,
or the error with which their build failed. A row is public, or was built with the rights of one
user, the row's reader. The rows are read-only, but staff can clear definitions and let a worker
rebuild public definitions.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

from definitions.admin import ClearableAdmin
from definitions.lookup import DefinitionLookup
from definitions.models import Definition
from notifications.admin import PREVIEW_LENGTH
from realms.admin.pages import MAY_CLEAR, page, render
from reindex.jobs.presence import HEARD_LATELY
from reindex.jobs.wanted import want_definitions
from reindex.models import WantedDefinitions, Worker

#: The maximum number of modules that one action rebuilds. The action redirects to a URL that
#: contains the URLs of all these modules, and such a URL must not be too long.
MOST_REBUILT = 50
#: The large columns that the page `rebuilt` doesn't load, because the page refreshes every two
#: seconds. The column `error` is not in this list, because the page shows the errors.
_LARGE = ("definitions", "dependencies", "realm_urls")


@admin.register(Definition)
class DefinitionAdmin(ClearableAdmin):
    large = ("definitions", "error", "dependencies")
    list_display = (
        "module_url", "realm_url", "scope", "reader", "failed", "built_at", "build_ms",
    )  # fmt: skip
    list_filter = ("scope", ("expires_at", admin.EmptyFieldListFilter))
    search_fields = ("module_url", "realm_url", "reader")
    ordering = ("module_url", "scope", "reader")
    actions = ("rebuild", "clear")

    @admin.action(
        description="Clear on every replica; the next request rebuilds the definitions",
        permissions=["clear"],
    )
    def clear(self, request: HttpRequest, queryset: QuerySet[Definition]) -> None:
        """Drops the definitions of the chosen modules, and of all modules that import these. The
        next request for the definitions of a module builds them again."""
        self.cleared(request, self._drop(request, queryset, "Cleared.", "clear"))

    @admin.action(description="Rebuild: clear, and let a worker build", permissions=["clear"])
    def rebuild(self, request: HttpRequest, queryset: QuerySet[Definition]) -> HttpResponse | None:
        """Drops the same definitions as `clear`, enqueues builds of the chosen public rows, and
        redirects to the page `rebuilt`. Leaves out a module if only rows with a reader were chosen,
        because only the reader's own requests can build such a row."""
        rows = list(queryset)
        public = sorted({row.module_url for row in rows if row.scope == Definition.Scope.PUBLIC})
        if not public or len(public) > MOST_REBUILT:
            why = (
                "only requests by a reader can build definitions with the rights of that reader; "
                "clear these definitions instead"
                if not public
                else f"choose at most {MOST_REBUILT} modules"
            )
            messages.error(request, f"Not done: {why}.")
            return None
        self._drop(request, queryset.filter(module_url__in=public), "Rebuilt.", "rebuild")
        want_definitions(public, anew=True)
        query = urlencode({"module": public}, doseq=True)
        return HttpResponseRedirect(f"{reverse('admin:definitions_rebuilt')}?{query}")

    def _drop(
        self, request: HttpRequest, rows: QuerySet[Definition], note: str, how: str
    ) -> list[str]:
        modules = sorted(set(rows.values_list("module_url", flat=True)))
        for row in rows:
            self.log_change(request, row, note)
        DefinitionLookup().invalidate(*modules, by=f"{how} by {request.user.get_username()}")
        return modules

    @admin.display(boolean=True)
    def failed(self, definition: Definition) -> bool:
        """Returns whether the row holds an error. Only rows with an error have an expiry time."""
        return definition.expires_at is not None

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # The first three fields are summaries. The stored columns are below them.
        return ["outcome", "exports", "made_from", *super().get_fields(request, obj)]

    @admin.display(description="outcome")
    def outcome(self, definition: Definition) -> str:
        """Returns how the build ended and how long it took, with the causes of an error."""
        causes = (definition.error or {}).get("causes", ())
        lines = [outcome(definition), *(f"caused by: {each}" for each in causes)]
        return format_html_join("", "<div>{}</div>", _beginning((line,) for line in lines))

    @admin.display(description="exports")
    def exports(self, definition: Definition) -> str:
        """Returns the module's exports, each with its fields."""
        if not definition.definitions:
            return "none"
        rows = ((name, _fields(each)) for name, each in definition.definitions.items())
        return format_html_join("", "<div><strong>{}</strong>: {}</div>", _beginning(rows))

    @admin.display(description="made from")
    def made_from(self, definition: Definition) -> str:
        """Returns the modules that the module imports, directly or indirectly."""
        if not definition.dependencies:
            return "no other module"
        urls = _beginning((url,) for url in definition.dependencies)
        listed = format_html_join("", "<li>{}</li>", urls)
        return format_html("<ul>{}</ul>", listed)


def _beginning(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yields the first rows, with at most PREVIEW_LENGTH characters in total. Cuts the text that
    would exceed this total."""
    left = PREVIEW_LENGTH
    for row in rows:
        kept = []
        for cell in row:
            kept.append(cell if len(cell) <= left else f"{cell[:left]}…")
            left = max(left - len(cell), 0)
        yield tuple(kept)
        if left == 0:
            return


def _fields(exported: Mapping[str, Any]) -> str:
    """Returns the fields of an exported card type as text, for example `title (string), author
    (linksTo Person)`."""
    told = []
    for name, each in exported.get("fields", {}).items():
        kind, of = each.get("kind", ""), each.get("type", "")
        of = of.get("name", "") if isinstance(of, Mapping) else of
        told.append(f"{name} ({of if kind == 'contains' else f'{kind} {of}'.strip()})")
    return ", ".join(told) or "no fields"


def outcome(definition: Definition) -> str:
    """Returns a text that says how the build of a row ended. Doesn't read the columns in `_LARGE`,
    because the view `rebuilt` loads rows without them."""
    took = f"built in {definition.build_ms:,} ms at {definition.built_at:%Y-%m-%d %H:%M:%S} UTC"
    if definition.error is None:
        return took
    error = definition.error
    title, message = error.get("title", "Build Failed"), error.get("message", "")
    return f"{took}: failed: {title}: {message}"


@dataclass(frozen=True)
class Rebuild:
    """The state of a module's rebuild. `says` describes the state, and `over` says whether the
    state is final. `row` holds the new definitions, once they are built."""

    module_url: str
    says: str
    over: bool
    row: Definition | None = None


@page(MAY_CLEAR, "GET")
def rebuilt(request: HttpRequest) -> HttpResponse:
    """Shows the states of the rebuilds that `DefinitionAdmin.rebuild` enqueued."""
    if not request.user.has_perm("definitions.view_definition"):
        raise PermissionDenied
    modules = [url.replace("\0", "") for url in request.GET.getlist("module")[:MOST_REBUILT]]
    found = list(_rebuilds(modules))
    complete = all(each.over for each in found)
    return render(request, "rebuilt", "Rebuilt definitions", rebuilds=found, complete=complete)


def _rebuilds(modules: list[str]) -> Iterable[Rebuild]:
    # Read the `WantedDefinitions` rows first. A worker stores a module's definitions, and then
    # deletes the module's `WantedDefinitions` row. If these rows were read last, the worker could
    # do both between the two reads. Neither read would find the module, which would look failed.
    wanted = WantedDefinitions.objects.in_bulk(modules)
    # `DefinitionAdmin.rebuild` has deleted the old rows. If a build began before the deletion, the
    # trigger REFUSE_LATE_BUILD refuses its row. So each row found here is new.
    public = Definition.objects.filter(scope=Definition.Scope.PUBLIC, module_url__in=modules)
    rows = {row.module_url: row for row in public.defer(*_LARGE)}
    now = timezone.now()
    running = Worker.objects.filter(heard_at__gt=now - HEARD_LATELY).exists()
    for url in modules:
        waiting = wanted.get(url)
        if url in rows:
            yield Rebuild(url, outcome(rows[url]), True, rows[url])
        elif waiting is None:
            says = "no worker could build it; the next request for its definitions tries again"
            yield Rebuild(url, says, True)
        elif waiting.lease_until is not None and waiting.lease_until > now:
            yield Rebuild(url, f"{waiting.worker} builds it", False)
        else:
            says = "waits for a worker" if running else "waits, and no worker is running"
            yield Rebuild(url, says, False)
