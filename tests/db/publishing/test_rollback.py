"""Tests that a rollback shows an earlier publication again, at a new generation."""

import pytest

from definitions.models import Definition
from realms.access.auth import Caller
from realms.errors import Forbidden, NotPublished, Unprocessable
from realms.models import Realm
from realms.publishing.publish import rollback_realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.data.published import generation, shown
from tests.support.web import everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
SECOND_PAGE = "http://ada.localhost:4201/second/"
ADA = Caller("ada")


def test_a_rollback_shows_the_previous_publication_at_a_new_generation(source: Realm) -> None:
    first = make.publish(source, PAGE)
    make.write(source, index__json=b"{}", new__md=b"new")
    make.remove(source, "ada.json")
    second = make.publish(source, PAGE)
    done = rollback_realm(PAGE, ADA)
    assert shown(PAGE) == make.SITE
    assert done.generation == second.generation + 1
    assert done.source_generation == first.source_generation
    assert done.realm_id == first.realm_id
    assert shown(source.url)["index.json"] == b"{}", "a rollback must not change the source"
    assert ReindexJob.objects.get(realm_url=PAGE, status="queued").generation == done.generation
    assert not Definition.objects.exists()


def test_a_rollback_can_name_the_generation_to_show(source: Realm) -> None:
    done = []
    for number in range(4):
        make.write(source, index__json=str(number).encode())
        done.append(make.publish(source, PAGE))
    rollback_realm(PAGE, ADA, done[1].generation)
    assert shown(PAGE)["index.json"] == b"1"
    rollback_realm(PAGE, ADA, done[3].generation)
    assert shown(PAGE)["index.json"] == b"3"
    before = everything()
    for missing in (0, 10_000):
        with pytest.raises(Unprocessable, match=f"no publication of generation {missing}"):
            rollback_realm(PAGE, ADA, missing)
    for shown_already in (generation(PAGE), done[3].generation):
        with pytest.raises(Unprocessable, match=f"what it showed at generation {shown_already}$"):
            rollback_realm(PAGE, ADA, shown_already)
    assert everything() == before


def test_a_second_rollback_shows_the_publication_before_that(source: Realm) -> None:
    for number in range(3):
        make.write(source, index__json=str(number).encode())
        make.publish(source, PAGE)
    for number in (1, 0):
        rollback_realm(PAGE, ADA)
        assert shown(PAGE)["index.json"] == str(number).encode()
    with pytest.raises(Unprocessable, match="before this one"):
        rollback_realm(PAGE, ADA)
    make.write(source, index__json=b"3")
    make.publish(source, PAGE)
    rollback_realm(PAGE, ADA)
    assert shown(PAGE)["index.json"] == b"0", "a rollback skips what earlier rollbacks undid"


def test_a_rollback_skips_publications_of_the_same_content(source: Realm) -> None:
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}")
    make.publish(source, PAGE)
    make.publish(source, PAGE)
    rollback_realm(PAGE, ADA)
    assert shown(PAGE) == make.SITE


def test_a_first_publication_or_an_unpublished_realm_has_no_rollback(
    source: Realm,
) -> None:
    make.publish(source, PAGE)
    with pytest.raises(Unprocessable, match="before this one"):
        rollback_realm(PAGE, ADA)
    for url in (source.url, SECOND_PAGE):
        with pytest.raises(NotPublished):
            rollback_realm(url, ADA)
    make.user("bob")
    with pytest.raises(Forbidden):
        rollback_realm(PAGE, Caller("bob"))
