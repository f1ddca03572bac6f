"""Tests that the generation of a realm URL never decreases, whether rows change through the ORM or
plain SQL."""

from typing import Any

import pytest
from django.db import connection, transaction

from realms.access.auth import Caller
from realms.models import Realm, RealmTombstone
from realms.publishing.publish import delete_realm, unpublish_realm
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.data.published import generation, shown
from tests.support.gates import Gate, in_thread
from tests.support.web import ORIGIN

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
ADA = Caller("ada")


def test_the_generation_never_falls_and_the_id_is_new_after_an_unpublish(source: Realm) -> None:
    one = make.publish(source, PAGE)
    two = make.publish(source, PAGE)
    unpublish_realm(PAGE, ADA)
    assert not Realm.objects.filter(url=PAGE).exists()
    three = make.publish(source, PAGE)
    assert one.realm_id == two.realm_id != three.realm_id
    assert one.generation < two.generation < three.generation
    assert not RealmTombstone.objects.filter(url=PAGE).exists()


def test_the_generation_never_falls_across_a_delete_and_a_new_realm(
    source: Realm, owner: Any
) -> None:
    make.publish(source, PAGE)
    for _ in range(3):
        make.write(source, index__json=str(generation(source.url)).encode())
    before = generation(source.url), generation(PAGE)
    delete_realm(source.url, ADA)
    again = make.source(source.url, owner, {"new.md": b"new"})
    make.publish(again, PAGE)
    assert generation(source.url) > before[0]
    assert generation(PAGE) > before[1]
    assert shown(source.url) == shown(PAGE) == {"new.md": b"new"}


def test_the_database_refuses_an_update_that_lowers_a_generation(source: Realm) -> None:
    with pytest.raises(Exception, match="can not fall from 2 to 1"):
        Realm.objects.filter(pk=source.pk).update(generation=1)


DELETES: dict[str, str] = {
    "a statement": "DELETE FROM realms_realmpermission; DELETE FROM realms_fileversion;"
    " DELETE FROM realms_realm WHERE url = %(url)s",
    "a truncate": "TRUNCATE realms_realm CASCADE",
    "two deletes": "DELETE FROM realms_realmpermission; DELETE FROM realms_fileversion;"
    " DELETE FROM realms_realm WHERE url = %(url)s;"
    " INSERT INTO realms_realm (id, url, kind, generation, history_from, publishable, created_at)"
    " VALUES (gen_random_uuid(), %(url)s, 'source', 1, 0, true, now());"
    " DELETE FROM realms_realm WHERE url = %(url)s",
}


@pytest.mark.parametrize("insert", ["a statement", "many rows", "the ORM", "a higher generation"])
@pytest.mark.parametrize("delete", [*DELETES, "the ORM"])
def test_a_realm_inserted_after_any_delete_gets_a_higher_generation(
    source: Realm, delete: str, insert: str
) -> None:
    make.write(source, index__json=b"{}")
    before, url = generation(source.url), source.url
    with connection.cursor() as cursor:
        if delete == "the ORM":
            Realm.objects.filter(url=url).delete()
        else:
            cursor.execute(DELETES[delete], {"url": url})
        if insert == "the ORM":
            Realm.objects.bulk_create([Realm(url=url, kind="source")])
        else:
            first = 1000 if insert == "a higher generation" else 1
            cursor.execute(
                "INSERT INTO realms_realm (id, url, kind, generation, history_from, publishable,"
                " created_at) SELECT gen_random_uuid(), u, 'source', %s, 0, true, now()"
                " FROM unnest(%s::text[]) u",
                [first, [f"{ORIGIN}/new/", url] if insert == "many rows" else [url]],
            )
    if insert == "a higher generation":
        assert generation(url) == 1000
    else:
        assert generation(url) > before
    assert not RealmTombstone.objects.filter(url=url).exists()


def test_an_insert_that_waits_for_a_delete_gets_a_higher_generation(source: Realm) -> None:
    """A tombstone is a row with the last generation of a deleted realm. The insert starts before
    the delete commits, so the insert's snapshot lacks the tombstone."""
    before, gate = generation(source.url), Gate()

    def delete() -> None:
        with transaction.atomic():
            Realm.objects.get(url=source.url).delete()
            gate.hold()

    deleting = in_thread(delete)
    gate.wait_for_arrival()
    inserting = in_thread(lambda: Realm.objects.create(url=source.url, kind="source") and None)
    wait_until(_a_transaction_is_waited_for, "the insert waiting for the delete")
    gate.open()
    deleting.result(20)
    inserting.result(20)
    assert generation(source.url) > before


def _a_transaction_is_waited_for() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        )
        return bool(cursor.fetchone()[0])
