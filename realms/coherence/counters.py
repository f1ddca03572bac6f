"""Lists the generation counters of realms and of definitions, with the time and the cause of each
counter's last increase.

The counter of a realm is its generation, which rises with each change of the realm. Definitions
say what a module exports. When stored definitions are dropped, their counters rise. The database
then refuses the result of a build that began before, because this result may be outdated.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Concat

from definitions.models import CacheGeneration, Definition
from realms.models import Realm

COUNTERS_PER_PAGE = 50
#: The `kind` of the `Counter` that is a realm's generation. A counter of definitions has the kind
#: `definitions, global`, `definitions, realm` or `definitions, module`.
OF_REALM = "realm"


@dataclass(frozen=True)
class Counter:
    """One generation counter. `kind` is as described at OF_REALM. `key` is the URL of the realm or
    module, and is empty for the counter of all definitions. `clearable` says whether the admin's
    page *Clear caches* has anything left to clear for this key."""

    kind: str
    key: str
    generation: int
    bumped_at: datetime | None
    bumped_by: str
    clearable: bool

    @property
    def query(self) -> str:
        """The query string with which the admin's page *Clear caches* selects this realm, this
        module or all definitions."""
        if not self.key:
            return "definitions=on"
        of_module = self.kind.endswith(CacheGeneration.Scope.MODULE)
        return urlencode({"module" if of_module else "realm": self.key})


def counters(text: str, page_number: str | None, *, realms: bool = True) -> "Page[Counter]":
    """Returns one page of the counters that have `text` in their URL or cause. The most recently
    raised counters come first. For a user who may not view realms, `realms` is false: only the
    counters of definitions are returned. Their causes are neither searched nor returned, because a
    cause can name a realm's files."""
    found = _definitions(text, causes=realms)
    if realms:
        found = _realms(text).union(found, all=True)
    ordered = found.order_by(F("at").desc(nulls_last=True), "of", "what")
    page: Page[Any] = Paginator(ordered, COUNTERS_PER_PAGE).get_page(page_number)
    rows: list[Any] = list(page.object_list)
    clearable = _clearable([of for _, of, *_ in rows])
    page.object_list = [
        Counter(kind, of, generation, at, by, of in clearable)
        for kind, of, generation, at, by in rows
    ]
    return page


def _clearable(keys: list[str]) -> set[str]:
    """Returns the URLs in `keys` of realms that exist and of modules that have stored definitions,
    and the empty key, which means all definitions. Omits other URLs: their counters remain in the
    database, but there is nothing to clear."""
    realms = Realm.objects.filter(url__in=keys).values_list("url", flat=True)
    modules = Definition.objects.filter(module_url__in=keys).values_list("module_url", flat=True)
    return {"", *realms, *modules}


def _realms(text: str) -> "QuerySet[Any, Any]":
    rows = Realm.objects.filter(Q(url__icontains=text) | Q(bumped_by__icontains=text))
    return _columns(rows, Value(OF_REALM), "url", F("bumped_at"), F("bumped_by"))


def _definitions(text: str, *, causes: bool) -> "QuerySet[Any, Any]":
    of_text = Q(key__icontains=text)
    rows = CacheGeneration.objects.filter(
        of_text | Q(bumped_by__icontains=text) if causes else of_text
    )
    # A build of definitions creates counters with generation 0. Until such a counter is first
    # raised, `bumped_at` is the time of its creation, which is not shown.
    raised_at = Case(When(generation__gt=0, then="bumped_at"))
    by = F("bumped_by") if causes else Value("")
    return _columns(rows, Concat(Value("definitions, "), F("scope")), "key", raised_at, by)


def _columns(rows: "QuerySet[Any]", what: Any, of: str, at: Any, by: Any) -> "QuerySet[Any, Any]":
    named = rows.order_by().annotate(what=what, of=F(of), number=F("generation"), at=at, by=by)
    columns: QuerySet[Any, Any] = named.values_list("what", "of", "number", "at", "by")
    return columns
