"""Serves the admin's pages that publish, roll back, unpublish and delete a realm.

Each of these pages first shows what will change. The pages and the API call the same functions, so
both make the same checks. A further page compares two publications.
"""

from uuid import UUID

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from notifications.texts import whole_number
from realms.admin.pages import (
    MAY_PUBLISH,
    MAY_VIEW,
    acting_as,
    page,
    realm_of,
    render,
    report,
)
from realms.content.history import changed_between
from realms.errors import Malformed, NotPublished
from realms.models import Publication, Realm
from realms.publishing.publish import (
    delete_realm,
    publish_realm,
    rollback_realm,
    rollback_target,
    unpublish_realm,
)
from realms.publishing.rights import deletable

#: The maximum number of changed paths on a page.
PATHS_SHOWN = 20
#: The maximum number of earlier publications on the page `roll_back`.
PUBLICATIONS_SHOWN = 10


@page(MAY_PUBLISH, "GET", "POST")
def publish(request: HttpRequest, realm_id: UUID) -> HttpResponse:
    """If `realm_id` is a source realm, publishes it to the URL that the user chooses. If `realm_id`
    is a published realm, publishes it again, with the current files of its source realm."""
    realm = realm_of(realm_id)
    source = realm.source or realm
    if request.method == "GET":
        copies = Realm.objects.filter(source=source).order_by("url")
        target = realm if realm.source else None
        changed = _not_shown_yet(target, source) if target else None
        return render(
            request, "publish", "Publish", realm=realm, source=source, copies=copies,
            target=target, changed=_first(changed),
        )  # fmt: skip
    target_url = realm.url if realm.source else request.POST.get("target", "").strip()
    done = publish_realm(source.url, target_url, acting_as(request))
    message = (
        f"Published generation {done.source_generation} of {done.source_url} to {done.url}, "
        f"which is at generation {done.generation} now. Workers render its pages next."
    )
    report(request, message, realm)
    return _timeline(done.url)


@page(MAY_PUBLISH, "GET", "POST")
def roll_back(request: HttpRequest, realm_id: UUID) -> HttpResponse:
    """Rolls a published realm back to an earlier publication, by default to the previous one."""
    realm = realm_of(realm_id)
    if realm.kind != Realm.Kind.PUBLISHED:
        raise NotPublished(url=realm.url)
    if request.method == "GET":
        given = request.GET.get("publication")
        wanted = generation(given) if given else None
        target, now = rollback_target(realm, wanted), realm.publications.first()
        earlier = realm.publications.filter(generation__lt=realm.generation)
        return render(
            request, "rollback", "Roll back", realm=realm, now=now, target=target,
            changed=_first(_differing(target, now) if now else None),
            earlier=earlier.select_related("source")[:PUBLICATIONS_SHOWN],
        )  # fmt: skip
    # The form contains the publication that the user has confirmed. Roll back to this publication,
    # even if the realm has been published since the user opened the form.
    confirmed = generation(request.POST.get("publication", ""))
    done = rollback_realm(realm.url, acting_as(request), confirmed)
    message = (
        f"Rolled {done.url} back to what it showed at generation {confirmed}; "
        f"it is at generation {done.generation} now. Workers render its pages next."
    )
    report(request, message, realm)
    return _timeline(done.url)


@page(MAY_PUBLISH, "GET", "POST")
def remove(request: HttpRequest, realm_id: UUID) -> HttpResponse:
    """Unpublishes a published realm, or deletes a source realm and all its published realms."""
    realm = realm_of(realm_id)
    published = realm.kind == Realm.Kind.PUBLISHED
    if not published:
        deletable(realm.url, acting_as(request))
    if request.method == "GET":
        copies = Realm.objects.filter(source=realm).order_by("url")
        title = "Unpublish" if published else "Delete"
        return render(request, "remove", title, realm=realm, published=published, copies=copies)
    if published:
        unpublish_realm(realm.url, acting_as(request))
        report(request, f"Unpublished {realm.url}.", realm)
    else:
        gone = delete_realm(realm.url, acting_as(request))
        report(request, f"Deleted {', '.join(gone)}.", realm)
    return HttpResponseRedirect(reverse("admin:realms_realm_changelist"))


@page(MAY_VIEW, "GET")
def differences(request: HttpRequest, realm_id: UUID) -> HttpResponse:
    """Shows the files that differ between two publications of a realm."""
    realm = realm_of(realm_id)
    one, other = (
        realm.publications.filter(generation=generation(request.GET.get(name, ""))).first()
        for name in ("from", "to")
    )
    if one is None or other is None:
        raise Malformed(what=f"{realm.url} has no publication at one of the two given generations")
    paths = _differing(one, other)
    return render(
        request, "differences", "Differences", realm=realm, one=one, other=other, paths=paths
    )


def generation(text: str) -> int:
    """Parses a text as the number of a generation. Raises Malformed if the text is not a number."""
    found = whole_number(text)
    if found is None:
        raise Malformed(what=f"expected a generation, but got {text[:40]!r}")
    return found


def _not_shown_yet(target: Realm, source: Realm) -> list[str] | None:
    """Returns the paths that a publish of `source` to `target` would change; None if `target` shows
    another source realm."""
    now = target.publications.first()
    if now is None or now.source_id != source.pk:
        return None
    return changed_between(source, now.source_generation, source.generation)


def _differing(one: Publication, other: Publication) -> list[str] | None:
    """Returns the paths that differ between two publications; None if their source realms
    differ."""
    if one.source_id != other.source_id:
        return None
    return changed_between(other.source, one.source_generation, other.source_generation)


def _first(paths: list[str] | None) -> dict[str, object]:
    """Returns the values for the template: whether the paths are known, the total number of paths,
    the first PATHS_SHOWN paths, and the number of the remaining paths."""
    known = paths is not None
    return {
        "known": known,
        "count": len(paths or []),
        "paths": (paths or [])[:PATHS_SHOWN],
        "more": max(len(paths or []) - PATHS_SHOWN, 0),
    }


def _timeline(url: str) -> HttpResponse:
    return HttpResponseRedirect(f"{reverse('admin:realms_publication_timeline')}?q={url}")
