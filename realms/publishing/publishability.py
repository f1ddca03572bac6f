"""Reports the errors that a realm's pages would have if the realm were published now.

The report lists three kinds of faults. First, a card or a module refers to another realm that is
private. Pages never contain content of such a realm. Second, the file of a card is broken, so the
card can't be rendered. Third, a rendering of the realm's current files has failed for a card.
Another rendering of these files would probably fail too.
"""

from collections.abc import Iterator
from typing import Any

from realms.addresses import realm_candidates
from realms.content.listing import Listed
from realms.errors import NotFound
from realms.models import EVERYONE, Publication, Realm, RealmPermission
from realms.publishing.outside_references import Findings, scan
from reindex.index.shown import failed_cards, shown_cards
from reindex.reading.card_paths import card_of, file_of
from reindex.reading.documents import no_longer_a_card
from reindex.reading.references import file_url


def report(realm: Realm) -> Listed:
    """Returns a document that says whether the realm can be published, and lists all faults. Raises
    NotFound if the realm has been deleted."""
    current = Realm.objects.filter(pk=realm.pk).first()
    if current is None:
        raise NotFound(url=realm.url)
    findings = scan(current)
    private = list(_private_dependencies(current, findings))
    broken = [
        {"kind": "error-document", "resource": file_url(realm.url, path), "message": message}
        for path, message in sorted(_broken_cards(current, findings).items())
    ]
    by_warning = {"has-private-dependencies": private, "has-error-card-documents": broken}
    warnings = [warning for warning, reasons in by_warning.items() if reasons]
    violations = [*private, *broken]
    attributes = {
        "publishable": current.publishable and not violations,
        "realmURL": realm.url,
        "violations": violations,
        **({"warningTypes": warnings} if warnings else {}),
    }
    data = {"type": "realm-publishability", "id": realm.url, "attributes": attributes}
    return Listed(current.generation, {"data": data})


def _private_dependencies(realm: Realm, findings: Findings) -> Iterator[dict[str, Any]]:
    private = _private_realms({target for each in findings.values() for target in each.outside})
    for path, references in sorted(findings.items()):
        dependencies = [
            {"dependency": target, "realmURL": private[target]}
            for target in sorted(references.outside)
            if target in private
        ]
        if dependencies:
            yield {
                "kind": "private-dependency",
                "resource": file_url(realm.url, path),
                "externalDependencies": dependencies,
            }


def _private_realms(targets: set[str]) -> dict[str, str]:
    """Finds the URLs in `targets` that lie in a private realm. A realm is private if only some
    users may read it. Returns a dictionary from each of these URLs to the URL of its realm."""
    candidates = {target: realm_candidates(target) for target in targets}
    wanted = {url for urls in candidates.values() for url in urls}
    realms = set(Realm.objects.filter(url__in=wanted).values_list("url", flat=True))
    public = RealmPermission.objects.filter(realm__url__in=realms, audience=EVERYONE, read=True)
    private = realms - set(public.values_list("realm__url", flat=True))
    realm_of: dict[str, str] = {}
    for target, urls in candidates.items():
        innermost = next((url for url in urls if url in realms), None)
        if innermost in private:
            realm_of[target] = innermost
    return realm_of


def _broken_cards(realm: Realm, findings: Findings) -> dict[str, str]:
    """Returns the error message of each broken card, by the path of the card's file. A card is
    broken if its file is invalid, or if a rendering of the realm's current files gave an error for
    the card. A file that is no longer a card also counts as a broken card, as long as `realm` or a
    realm published from `realm` still shows the card's page."""
    shown = [(realm.url, realm.generation)]
    urls = [realm.url]
    for copy in Realm.objects.filter(source=realm):
        urls.append(copy.url)
        newest = Publication.objects.filter(realm=copy).first()
        if newest is not None and newest.source_generation == realm.generation:
            shown.append((copy.url, copy.generation))
    broken = {
        file_of(card): message
        for url, generation in shown
        for card, message in failed_cards(url, generation).items()
    }
    data = [card_of(path) for path, references in findings.items() if references.data]
    for card in shown_cards(urls, data):
        broken[file_of(card)] = str(no_longer_a_card(file_of(card)))
    return broken | {
        path: references.broken for path, references in findings.items() if references.broken
    }
