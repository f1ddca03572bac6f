"""Serves the admin's start page *Coherence*, and the page that says why a replica is behind.

The start page shows which replicas are behind, which pages are old, and what the operator should
do. Each change of a realm's files gives the realm a new generation. A replica is behind if it has
not yet reported that it has applied a realm's current generation.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone

from notifications.models import Replica, ReplicaGeneration
from realms.admin.pages import MAY_VIEW, page, permissions, realm_of, render
from realms.coherence import conditions
from realms.coherence.generations import bound, matrix
from realms.models import FileVersion, Publication, Realm


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Adds the content of the start page to the template context `context`, if the user may view
    realms. Unfold, the library that styles the admin, calls this function."""
    if request.user.has_perm(MAY_VIEW):
        context |= {"title": "Coherence", **permissions(request), **_shown(request)}
    return context


@page(MAY_VIEW, "GET")
def live(request: HttpRequest) -> HttpResponse:
    """Returns the start page's content for the script that refreshes the page."""
    return render(request, "coherence", "Coherence", **_shown(request))


def _shown(request: HttpRequest) -> dict[str, Any]:
    text = request.GET.get("q", "").replace("\0", "").strip()
    only_problems = request.GET.get("problems") == "on"
    found = matrix(text, request.GET.get("p"), only_problems=only_problems)
    return {"matrix": found}


# --- Why a replica is behind -------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One of the steps from the commit of a change until a replica reports the change. `what` and
    `more` are texts for the page. `at` is None if the step hasn't happened or its time is
    unknown."""

    what: str
    at: datetime | None
    more: str = ""


@page(MAY_VIEW, "GET")
def why(request: HttpRequest, realm_id: UUID, replica: str) -> HttpResponse:
    """Shows which steps of a realm's last change have reached a replica, and its condition."""
    realm, reporting = realm_of(realm_id), get_object_or_404(Replica, pk=replica)
    row = ReplicaGeneration.objects.filter(replica=reporting, realm_url=realm.url).first()
    applied = row.generation if row else 0
    now = timezone.now()
    return render(
        request,
        "why",
        f"{realm.url} on {reporting.name}",
        realm=realm,
        replica=reporting,
        applied=row,
        behind=max(realm.generation - applied, 0),
        steps=_steps(realm, reporting, row),
        condition=conditions.of_replica(reporting, now, bound()),
    )


def _steps(realm: Realm, replica: Replica, row: ReplicaGeneration | None) -> list[Step]:
    changed, by = _last_change(realm)
    watermark = replica.watermark_at
    heard = watermark is not None and changed is not None and watermark > changed
    current = row is not None and row.generation >= realm.generation
    return [
        Step(f"Generation {realm.generation} was committed", changed, by),
        Step(
            f"{replica.name} has been notified of every change before this time (its watermark)",
            watermark,
            "so it has received this change"
            if heard
            else "so this change may not have arrived yet",
        ),
        Step(f"{replica.name} last reported", replica.reported_at, f"as {replica.state}"),
        Step(
            f"{replica.name} reported generation {row.generation if row else 'none'} of the realm",
            row.applied_at if row else None,
            "it is current" if current else f"it has not reported generation {realm.generation}",
        ),
    ]


def _last_change(realm: Realm) -> tuple[datetime | None, str]:
    """Returns the time and the cause of a realm's last change. The time is None if an older release
    made the change, and the change was no publish, rollback or write of files."""
    publication = Publication.objects.filter(realm=realm, generation=realm.generation).first()
    if publication is not None:
        return publication.at, f"published by {publication.by} from {publication.source.url}"
    written = FileVersion.objects.filter(realm=realm, from_generation=realm.generation)
    version = written.order_by("path").first()
    if version is not None:
        count = written.count()
        more = f" and {count - 1} more" if count > 1 else ""
        return version.modified_at, f"by a write of {version.path}{more}"
    if realm.bumped_at is not None:
        return realm.bumped_at, f"cause: {realm.bumped_by}"
    return None, "by a deletion of files, or the creation or removal of a realm inside this realm"
