"""Makes random edits, and tests that carrying cards over changes no result.

To carry a card over means to keep the card's page of the last index. A job does so if nothing that
the card was made from has changed. A full reindex, which renders every card, must give the same
index.
"""

import random
from typing import Any

from realms.api.reindex_views import reindex
from realms.models import Realm
from realms.publishing.publish import rollback_realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.data.notes import make_operator, note, plain
from tests.support.rendering import index_of, work_off

URL = "http://ada.localhost:4201/"
Sent = list[tuple[str, Any]]


def test_after_any_edits_the_index_equals_that_of_a_full_reindex(
    site: Realm, library: Realm, sent: Sent
) -> None:
    chance = random.Random(7)

    def edit(step: int) -> None:
        name = chance.choice("abcpq")
        kind = chance.randrange(6)
        if kind == 0:
            make.write_paths(
                site,
                {f"{name}.json": note(f"{name}{step}", chance.choice(("./a", "./c", "./x", "")))},
            )
        elif kind == 1:
            make.write_paths(site, {f"{name}.json": plain(f"{name}{step}")})
        elif kind == 2:
            make.write_paths(site, {"common.ts": f'export const suffix = "{step}";'.encode()})
        elif kind == 3:
            make.write_paths(library, {"label.ts": f'export const label = "l{step}";'.encode()})
        elif kind == 4:
            make.write_paths(site, {"x.json": note(f"x{step}", "./b")})
        elif site.versions.filter(path="x.json", until_generation=None).exists():
            make.remove(site, "x.json")

    for step in range(8):
        edit(step)
        if chance.random() < 0.5:
            edit(step)
        if step == 5:
            rollback_realm(URL, make_operator())
        else:
            make.publish(site, URL)
        work_off(sent)
        carried = {path: vars(card) for path, card in index_of(URL).items()}
        reindex(URL, full=True)
        work_off(sent)
        assert carried == {path: vars(card) for path, card in index_of(URL).items()}, step
    assert ReindexJob.objects.filter(realm_url=URL, carried__gt=0).exists()
