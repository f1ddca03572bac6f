"""Reports the errors that a realm's pages would have if the realm were published now.

The content of a private realm never reaches the pages of another realm, so a card or a module that
depends on another, private realm causes an error. A card with a broken file can't be rendered. If
the last rendering of a card failed, the next rendering fails too, unless something has changed.
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
    """Returns a document that says whether the realm can be published, with every reason against
    it. Raises NotFound."""
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
    """Returns the entries of `targets` that lie in a private realm, each with the URL of the
    private realm."""
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
    """Returns the error message of each broken card, by path. A card is broken if its file is
    invalid, or if rendering the realm's current files gave an error for the card. A card is also
    broken if it has a page although its file is no longer a card."""
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
