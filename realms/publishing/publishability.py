"""What would be wrong with a realm's pages if it were published as it stands.

A card or a module that leans on a realm which not everyone may read can't be rendered for
everyone. A card whose file is broken can't be rendered at all, and one that the last rendering
failed on will fail again, as long as nothing has changed.
"""

from collections.abc import Iterator
from typing import Any

from realms.addresses import realm_candidates
from realms.content.listing import Listed
from realms.errors import NotFound
from realms.models import EVERYONE, Publication, Realm, RealmPermission
from realms.publishing.outside_references import Findings, scan
from reindex.index.shown import failed_cards, shown_cards
from reindex.reading.documents import no_longer_a_card
from reindex.reading.references import file_url


def report(realm: Realm) -> Listed:
    """Whether the realm can be published, and every reason against it. Raises NotFound."""
    standing = Realm.objects.filter(pk=realm.pk).first()
    if standing is None:
        raise NotFound(url=realm.url)
    findings = scan(standing)
    private = list(_private_dependencies(standing, findings))
    broken = [
        {"kind": "error-document", "resource": file_url(realm.url, path), "message": message}
        for path, message in sorted(_broken_cards(standing, findings).items())
    ]
    reasons = {"has-private-dependencies": private, "has-error-card-documents": broken}
    warnings = [warning for warning, found in reasons.items() if found]
    violations = [*private, *broken]
    attributes = {
        "publishable": standing.publishable and not violations,
        "realmURL": realm.url,
        "violations": violations,
        **({"warningTypes": warnings} if warnings else {}),
    }
    data = {"type": "realm-publishability", "id": realm.url, "attributes": attributes}
    return Listed(standing.generation, {"data": data})


def _private_dependencies(realm: Realm, findings: Findings) -> Iterator[dict[str, Any]]:
    private = _private_realms({target for each in findings.values() for target in each.outside})
    for path, named in sorted(findings.items()):
        found = [
            {"dependency": target, "realmURL": private[target]}
            for target in sorted(named.outside)
            if target in private
        ]
        if found:
            yield {
                "kind": "private-dependency",
                "resource": file_url(realm.url, path),
                "externalDependencies": found,
            }


def _private_realms(targets: set[str]) -> dict[str, str]:
    """Of URLs those that lie in a realm which not everyone may read, and which realm that is."""
    candidates = {target: realm_candidates(target) for target in targets}
    wanted = {url for urls in candidates.values() for url in urls}
    realms = set(Realm.objects.filter(url__in=wanted).values_list("url", flat=True))
    public = RealmPermission.objects.filter(realm__url__in=realms, audience=EVERYONE, read=True)
    private = realms - set(public.values_list("realm__url", flat=True))
    found: dict[str, str] = {}
    for target, urls in candidates.items():
        standing = next((url for url in urls if url in realms), None)
        if standing in private:
            found[target] = standing
    return found


def _broken_cards(realm: Realm, findings: Findings) -> dict[str, str]:
    """What is wrong with cards, by file: those whose pages, rendered from the very files that stand
    now, are errors, and those that are no cards any more, or none yet."""
    shown = [(realm.url, realm.generation)]
    urls = [realm.url]
    for copy in Realm.objects.filter(source=realm):
        urls.append(copy.url)
        newest = Publication.objects.filter(realm=copy).first()
        if newest is not None and newest.source_generation == realm.generation:
            shown.append((copy.url, copy.generation))
    broken = {
        f"{card}.json": message
        for url, generation in shown
        for card, message in failed_cards(url, generation).items()
    }
    data = [path.removesuffix(".json") for path, found in findings.items() if found.data]
    for card in shown_cards(urls, data):
        broken[f"{card}.json"] = str(no_longer_a_card(f"{card}.json"))
    return broken | {path: found.broken for path, found in findings.items() if found.broken}
