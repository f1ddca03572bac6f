"""Serves the admin's page *Cache generations*. The page lists the generation counters of realms and
of definitions (what modules export), with the time and the cause of each counter's last
increase."""

from django.http import HttpRequest, HttpResponse

from realms.admin.pages import MAY_VIEW, page, render
from realms.coherence.counters import counters as found_counters


@page("definitions.view_cachegeneration", "GET")
def counters(request: HttpRequest) -> HttpResponse:
    """Returns the page with all counters. A counter belongs to a realm or a module, and has a
    cause, which says what raised it last. The parameter `q` is a text that the URL or the cause
    must contain. Users who may not view realms see only the counters of definitions, without
    causes, because a cause can name files of a realm."""
    text = request.GET.get("q", "").replace("\0", "").strip()
    may_view = request.user.has_perm(MAY_VIEW)
    found = found_counters(text, request.GET.get("p"), realms=may_view)
    context = {"page": found, "text": text, "may_view": may_view}
    return render(request, "counters", "Cache generations", **context)
