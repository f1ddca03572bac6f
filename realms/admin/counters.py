"""The page *Cache generations*: every generation, when it was raised last, and what raised it."""

from django.http import HttpRequest, HttpResponse

from realms.admin.pages import page, render
from realms.coherence.counters import counters as found_counters


@page("definitions.view_cachegeneration", "GET")
def counters(request: HttpRequest) -> HttpResponse:
    """All generations, or those whose URL or cause contains `q`."""
    text = request.GET.get("q", "").replace("\0", "").strip()
    found = found_counters(text, request.GET.get("p"))
    return render(request, "counters", "Cache generations", page=found, text=text)
