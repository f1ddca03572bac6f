"""Every generation that there is: of each realm, and of definitions. When each was raised last, and
what raised it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Concat

from definitions.models import CacheGeneration
from realms.models import Realm

COUNTERS_PER_PAGE = 50
#: The kind of a realm's own generation. The others are scopes of definitions.
OF_REALM = "realm"


@dataclass(frozen=True)
class Counter:
    """One generation. `kind` is `realm`, or `definitions` and their scope. `key` is a URL, or empty
    for all definitions."""

    kind: str
    key: str
    generation: int
    bumped_at: datetime | None
    bumped_by: str

    @property
    def query(self) -> str:
        """The query for which the page *Clear caches* offers to raise it."""
        if not self.key:
            return "definitions=on"
        of_module = self.kind.endswith(CacheGeneration.Scope.MODULE)
        return urlencode({"module" if of_module else "realm": self.key})


def counters(text: str, page_number: str | None) -> "Page[Counter]":
    """One page of the generations whose URL or cause contains `text`, those raised last first."""
    found = _realms(text).union(_definitions(text), all=True)
    ordered = found.order_by(F("at").desc(nulls_last=True), "of", "what")
    page: Page[Any] = Paginator(ordered, COUNTERS_PER_PAGE).get_page(page_number)
    page.object_list = [Counter(*row) for row in page.object_list]
    return page


def _realms(text: str) -> "QuerySet[Any, Any]":
    rows = Realm.objects.filter(Q(url__icontains=text) | Q(bumped_by__icontains=text))
    return _columns(rows, Value(OF_REALM), "url")


def _definitions(text: str) -> "QuerySet[Any, Any]":
    rows = CacheGeneration.objects.filter(Q(key__icontains=text) | Q(bumped_by__icontains=text))
    return _columns(rows, Concat(Value("definitions, "), F("scope")), "key")


def _columns(rows: "QuerySet[Any]", what: Any, of: str) -> "QuerySet[Any, Any]":
    named = rows.order_by().annotate(
        what=what, of=F(of), number=F("generation"), at=F("bumped_at"), by=F("bumped_by")
    )
    columns: QuerySet[Any, Any] = named.values_list("what", "of", "number", "at", "by")
    return columns
