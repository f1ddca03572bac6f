"""Publishes a realm with good cards and every kind of faulty card, through real replicas and a
worker.

A faulty card gets an error document with the error's message, module and line. The job's summary
lists each kind of error once, with the number of its cards and the first of them. The faulty card
keeps its previous page. Faulty cards don't affect other cards. Large cards and cards with many
links aren't faulty, so they get their pages.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils.html import escape

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs.report import outcome
from reindex.models import IndexedCard, ReindexJob
from tests.support import make
from tests.support.cluster import Cluster, cluster, wait_until

URL = "http://ada.localhost:4201/"
API = "application/vnd.api+json"
SAME = 1_000
LINKS = 5_000
CYCLE = 50
GOOD = [f"good/{i}" for i in range(50)]

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


def module(edition: str, *, top: str = "", fields: str = "") -> bytes:
    """Returns a module with a card type. A card of this type shows `edition`, the length of its
    title, and the number of its links to existing cards."""
    return f"""\
import {{ Card, computed, linksToMany, string }} from "@realm/base";
{top}
export class Page extends Card {{
  static fields = {{ title: string(), all: linksToMany(() => Card), {fields} }};
  static isolated = ({{ card }}) => <p>{edition} {{card.title.length}} {{card.all.length}}</p>;
}}
""".encode()


def cycle() -> dict[str, bytes]:
    """Returns modules that import each other in a cycle."""
    return {
        f"m{i}.tsx": f"""\
import {{ Card, linksTo, string }} from "@realm/base";
import {{ M{(i + 1) % CYCLE} as Next }} from "./m{(i + 1) % CYCLE}";
export class M{i} extends Card {{
  static fields = {{ title: string(), next: linksTo(() => Next) }};
  static isolated = ({{ card }}) => <p>{{card.title}}</p>;
}}
""".encode()
        for i in range(CYCLE)
    }


#: The length of a title with which a card has exactly the maximum size.
LETTERS = settings.CARD_SIZE_LIMIT_BYTES - len(make.card("./good", "Page", title=""))


def links() -> bytes:
    """Returns a card with very many links to good, failing and missing cards."""
    targets = [*GOOD, *(f"same/{i}" for i in range(SAME))]
    targets += [f"nothing/{i}" for i in range(LINKS - len(targets))]
    return make.card(
        "./good", "Page", {f"all.{i}": f"./{target}" for i, target in enumerate(targets)}, title=""
    )


BAD = ("syntax", "inner", "throws", "lacks", "field", "same", "type", "nowhere")
CARDS = {
    **{f"{name}.json": make.card("../good", "Page", title="letter") for name in GOOD},
    **{f"{name}.json": make.card(f"./{name}", "Page", title="") for name in BAD if name != "same"},
    **{f"same/{i}.json": make.card("../same", "Page", title="") for i in range(SAME)},
    "index.json": make.card("./good", "Page", title="index"),
    "large.json": make.card("./good", "Page", title="x" * LETTERS),
    "links.json": links(),
    "circle.json": make.card("./m0", "M0", title="round"),
}
#: The modules of the first publish, which all work. AFTER has the changes for the second publish.
BEFORE = {f"{name}.tsx": module("one") for name in ("good", *BAD)}
AFTER = {
    "good.tsx": module("two"),
    "syntax.tsx": b"export class Page { static fields = ; }",
    "inner.tsx": module("two", top='import { x } from "./inner-syntax.tsx";\nconsole.log(x);'),
    "inner-syntax.tsx": b"export const x = ;",
    # The transpiled JavaScript lacks the interface, so the lines after it have other numbers there.
    # The error must have the line number of the TypeScript.
    "throws.tsx": module(
        "two",
        top="interface Shop {\n  open: boolean;\n}\n\n"
        'throw new Error("the shop is shut", '
        '{ cause: new Error("no till", { cause: "the key is lost" }) });',
    ),
    "lacks.tsx": module("two", top='import { gone } from "./gone.tsx";\nconsole.log(gone);'),
    "field.tsx": module(
        "two",
        fields='price: computed(() => { throw new RangeError("too dear", { cause: "greed" }); })',
    ),
    "same.tsx": module("two", top='throw new Error("not today");'),
    "type.json": make.card("./good", "Nobody", title=""),
    "nowhere.json": make.card("./nowhere", "Page", title=""),
}


@dataclass(frozen=True)
class Wrong:
    """The expected error document of a faulty card."""

    status: int
    title: str
    message: str
    module: str
    causes: tuple[str, ...] = ()
    field: str | None = None
    line: int | None = None


FAILED = "The module failed while it was loaded"
WRONG = {
    "syntax": Wrong(406, "The module can't be transpiled", "Expression expected", "syntax.tsx"),
    "inner": Wrong(406, "The module can't be transpiled", "inner-syntax.tsx", "inner-syntax.tsx"),
    "throws": Wrong(
        500, FAILED, "the shop is shut", "throws.tsx", ("no till", "the key is lost"), line=6
    ),
    "lacks": Wrong(
        404, "Module not found", f"{URL}gone.tsx (imported by {URL}lacks.tsx)", "lacks.tsx", line=2
    ),
    "field": Wrong(
        500,
        "The card's fields can't be read",
        "The field price of Page can't be computed",
        "field.tsx",
        ("too dear", "greed"),
        field="price",
        line=4,
    ),
    "type": Wrong(404, "Card type not found", 'exports no "Nobody"; it exports Page', "good"),
    "nowhere": Wrong(404, "Module not found", f"{URL}nowhere", "nowhere"),
}
SAME_ERROR = Wrong(500, FAILED, "not today", "same.tsx", line=2)


@pytest.fixture
def fleet(owner: Any, tmp_path: Path) -> Iterator[Cluster]:
    """Yields a cluster of two replicas and a worker."""
    sync_base_realm()
    with cluster(tmp_path, 2) as running:
        running.start_worker()
        yield running


def publish(fleet: Cluster, source: Realm) -> ReindexJob:
    """Publishes through the first replica and waits until the job is finished. Returns the job."""
    answer = fleet.replicas[0].request(
        "POST",
        "http://localhost:4201/_publish-realm",
        accept=API,
        body=json.dumps({"sourceRealmURL": source.url, "publishedRealmURL": URL}),
        headers=make.login("ada"),
    )
    assert answer.status == 202, answer.text
    done = ReindexJob.objects.filter(
        realm_url=URL, generation=answer.headers["x-realm-generation"], status="done"
    )
    job = wait_until(done.first, "the job done", 120)
    assert isinstance(job, ReindexJob)
    return job


def test_each_bad_card_gets_an_error_and_does_not_affect_the_others(
    fleet: Cluster, owner: Any
) -> None:
    source = make.source("http://localhost:4201/ada/site/", owner, {**BEFORE, **CARDS, **cycle()})
    good = publish(fleet, source)
    assert (good.errors, good.summary.get("errors")) == (0, None)
    make.write_paths(source, AFTER)
    make.remove(source, "nowhere.tsx")
    job = publish(fleet, source)

    cards = {card.path: card for card in IndexedCard.objects.filter(realm_url=URL, current=True)}
    same = [f"same/{i}" for i in range(SAME)]
    expected = {**WRONG, **dict.fromkeys(same, SAME_ERROR)}
    assert {path for path, card in cards.items() if card.error} == expected.keys()
    for path, wrong in expected.items():
        error: Any = cards[path].error
        assert wrong.message in error["message"], error
        assert error == {
            "status": wrong.status,
            "title": wrong.title,
            "message": error["message"],
            "causes": [*wrong.causes],
            "module": f"{URL}{wrong.module}",
            "card": f"{URL}{path}",
            **({"field": wrong.field} if wrong.field else {}),
            **({"line": wrong.line} if wrong.line else {}),
        }
        # The card still shows its previous page.
        html: Any = cards[path].html
        assert html["isolated"].startswith("<p>one "), (path, html)
        assert cards[path].html_generation == good.generation

    pages = {**dict.fromkeys(GOOD, "<p>two 6 0</p>"), "index": "<p>two 5 0</p>"}
    pages["large"] = f"<p>two {LETTERS} 0</p>"
    pages["links"] = f"<p>two 0 {len(GOOD) + SAME}</p>"
    pages["circle"] = "<p>round</p>"
    for replica in fleet.replicas:
        for path, html in pages.items():
            page = replica.get(f"{URL}{path}", "text/html")
            assert (page.status, html in page.text) == (200, True), (path, page.text[:200])
            assert "x-realm-render-failed" not in page.headers
        for path in (*WRONG, "same/7"):
            page = replica.get(f"{URL}{path}", "text/html")
            assert (page.status, "<p>one " in page.text) == (200, True), (path, page.text[:200])
            assert page.headers["x-realm-render-failed"] == str(job.generation)

    # A job that started a process or sent a request for each error would take minutes.
    assert (job.errors, job.rendered + job.carried) == (len(expected), len(CARDS))
    assert good.seconds is not None and job.seconds is not None
    assert job.seconds < 3 * good.seconds + 5, (good.seconds, job.seconds)

    _is_told(job.summary, cards)
    _is_shown(fleet, job)


def _is_told(summary: Any, cards: dict[str, Any]) -> None:
    """Asserts that the job's summary lists each kind of error once, with the number of its cards
    and the first of them."""
    kinds = {kind["cards"][0]: kind for kind in summary["errors"]}
    assert kinds.keys() == {*WRONG, "same/0"}
    for path, wrong in WRONG.items():
        error = cards[path].error
        assert kinds[path] == {
            **{key: error[key] for key in ("status", "title", "message", "module", "causes")},
            **({"line": wrong.line} if wrong.line else {}),
            "count": 1,
            "cards": [path],
        }, wrong
    assert (kinds["same/0"]["count"], len(kinds["same/0"]["cards"])) == (SAME, 5)


def _is_shown(fleet: Cluster, job: ReindexJob) -> None:
    """Asserts that the endpoint `_publish-progress`, the command `reindex_realm` and the admin show
    the same errors."""
    asked = f"http://localhost:4201/_publish-progress?published_realm_url={URL}"
    answer = fleet.replicas[1].get(asked, API, **make.login("ada"))
    told = json.loads(answer.body)["data"]["attributes"]
    assert (told["phase"], told["errors"], told["summary"]) == ("done", job.errors, job.summary)

    assert fleet.manage("reindex_realm", URL, "--full").wait(120) == 1
    lines = (fleet.folder / "manage-reindex_realm.log").read_text().splitlines()
    # The error line may come before the other output, because it goes to another stream.
    (failed,) = (line for line in lines if line.startswith("CommandError: "))
    assert f": {job.errors} cards have errors" in failed
    lines.remove(failed)
    # The card with 5000 links causes a warning for each missing card. Leave out these lines.
    said = [line for line in lines if "warning" not in line or "carried over" in line]
    assert said[0] == f"{URL} is being rendered at generation {job.generation}"
    assert f"{len(CARDS)} cards rendered" in said[1]
    assert f"0 carried over, {job.errors} with errors" in said[1]
    assert len(said) == 2 + len(WRONG) + 1
    assert f"  1000 × {FAILED}: not today (same.tsx, line 2): same/0.json, same/1.json, " in said[2]
    assert (
        f"  1 × {FAILED}: the shop is shut, because: no till, because: the key is lost"
        " (throws.tsx, line 6): throws.json"
    ) in said

    get_user_model().objects.create_superuser("root", password="root")
    client = Client(headers={"host": "localhost:4201"})
    client.force_login(get_user_model().objects.get(username="root"))
    page = client.get(f"/_admin/reindex/reindexjob/{job.pk}/change/").content.decode()
    for line in outcome(job):
        assert escape(line) in page
