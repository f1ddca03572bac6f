"""The page *Cache generations*: every generation, when it was raised last, and what raised it."""

from django.http import HttpRequest, HttpResponse

from realms.admin.pages import MAY_VIEW, page, render
from realms.coherence.counters import counters as found_counters


@page("definitions.view_cachegeneration", "GET")
def counters(request: HttpRequest) -> HttpResponse:
    """All generations, or those whose URL or cause contains `q`. Realms and causes are for who may
    view realms."""
    text = request.GET.get("q", "").replace("\0", "").strip()
    may_view = request.user.has_perm(MAY_VIEW)
    found = found_counters(text, request.GET.get("p"), realms=may_view)
    context = {"page": found, "text": text, "may_view": may_view}
    return render(request, "counters", "Cache generations", **context)
