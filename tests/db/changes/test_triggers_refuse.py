"""Tests that database triggers refuse to decrease a generation or to change a realm's URL. A file
version may be closed once, which sets the generation at which it ends. The triggers refuse every
other change of a file version."""

from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from realms.models import Realm
from tests.db.changes.test_emit_and_triggers import REALM
from tests.support import make

pytestmark = pytest.mark.django_db(transaction=True)


def refused(message: str, statement: str, *parameters: Any) -> None:
    """Runs SQL that the database must refuse with an error that matches `message`."""
    with pytest.raises(DatabaseError, match=message), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(statement, list(parameters))


def test_a_generation_can_not_fall(source: Realm) -> None:
    refused(
        "generation of .*/ada/site/ can not fall from 2 to 1",
        "UPDATE realms_realm SET generation = 1 WHERE id = %s",
        source.pk,
    )
    source.refresh_from_db()
    assert source.generation == 2


def test_a_url_can_not_change(source: Realm) -> None:
    refused(
        "the URL of .*/ada/site/ can not change",
        "UPDATE realms_realm SET url = %s WHERE id = %s",
        REALM,
        source.pk,
    )


@pytest.mark.parametrize(
    "change",
    [
        "path = 'other.ts'",
        "sha256 = (SELECT max(sha256) FROM realms_fileversion WHERE path <> 'post.tsx')",
        "size = size + 1",
        "created_at = now() + interval '1 day'",
        "modified_at = now() + interval '1 day'",
        "from_generation = from_generation + 1",
        "from_generation = 1, until_generation = 5",
    ],
)
def test_an_open_version_can_only_be_closed(source: Realm, change: str) -> None:
    refused(
        "can only be closed, and only once: post.tsx",
        f"UPDATE realms_fileversion SET {change} WHERE realm_id = %s AND path = 'post.tsx'",
        source.pk,
    )


@pytest.mark.parametrize("change", ["until_generation = NULL", "until_generation = 9", "size = 0"])
def test_a_closed_version_can_not_change(source: Realm, change: str) -> None:
    make.remove(source, "post.tsx")
    refused(
        "can only be closed, and only once: post.tsx",
        f"UPDATE realms_fileversion SET {change} WHERE realm_id = %s AND path = 'post.tsx'",
        source.pk,
    )
