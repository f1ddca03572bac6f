"""Serves the admin's two pages that clear caches. The first page shows how many realms, files and
definitions will be cleared. The second page shows which replicas have cleared their caches.
Definitions describe what modules export."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.http import urlencode

from realms.access.auth import OPERATOR, Caller
from realms.admin.pages import MAY_CLEAR, page, render, report
from realms.coherence import clearing
from realms.coherence.clearing import Target
from realms.errors import Malformed
from realms.models import Realm


@page(MAY_CLEAR, "GET", "POST")
def clear(request: HttpRequest) -> HttpResponse:
    """Asks for confirmation (GET) or clears caches (POST). The user chooses one realm's caches, one
    module's definitions, all definitions, or everything.

    A user with the permission MAY_CLEAR needn't own the realm, because clearing loses no data.
    """
    given = request.GET if request.method == "GET" else request.POST
    target = Target(
        given.get("realm", "").strip(), given.get("module", "").strip(), "definitions" in given
    )
    chosen = target != Target() or "all" in given
    if request.method == "GET":
        impact = clearing.impact(target) if chosen else None
        realms = None if chosen else Realm.objects.order_by("url")[:500]
        return render(request, "clear", "Clear caches", target=target, impact=impact, realms=realms)
    if not chosen:
        raise Malformed(what="choose a realm or a module, or everything")
    since = clearing.clear(target, Caller(OPERATOR, operator=True), request.user.get_username())
    realm = Realm.objects.filter(url=target.realm_url).first() if target.realm_url else None
    report(request, f"Cleared {target}.", realm)
    query = urlencode({"since": since.isoformat(), "what": str(target)})
    return HttpResponseRedirect(f"{reverse('admin:realms_realm_cleared')}?{query}")


@page(MAY_CLEAR, "GET")
def cleared(request: HttpRequest) -> HttpResponse:
    """Shows which replicas have cleared their caches. The parameter `since` is the time that
    `clearing.clear` returned."""
    since = parse_datetime(request.GET.get("since", "").replace(" ", "+"))
    if since is None or since.tzinfo is None:
        raise Malformed(what="the parameter `since` must be the time of a clear, with a time zone")
    answers = clearing.answers(since)
    return render(
        request,
        "cleared",
        "Answers of the replicas",
        what=request.GET.get("what", "")[:300],
        since=since,
        answers=answers,
        complete=clearing.complete(answers),
    )
