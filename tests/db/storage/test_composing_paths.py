"""Tests the migration that normalizes paths to NFC, Unicode's composed form. The migration changes
the paths of current and old file versions, and loses no file."""

from importlib import import_module

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction

from realms.models import FileVersion, Realm
from reindex.models import IndexedCard
from tests.support import make
from tests.support.data.published import indexed, shown
from tests.support.web import Web

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"


def test_the_migration_composes_all_decomposed_paths_in_history(
    web: Web, source: Realm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published files and pages stay available. If two paths become equal, one of the files gets
    another name."""
    make.publish(source, PAGE)
    there = {"cafe\u0301.json": b"1", "cafe\u0301.md": b"2", "caf\u00e9.md": b"3"}
    make.write_paths(source, there)
    make.publish(source, PAGE)
    indexed(PAGE)
    IndexedCard.objects.filter(realm_url=PAGE).update(path="cafe\u0301")
    make.write_paths(source, {"cafe\u0301.json": b"4"})
    migration = import_module("realms.migrations.0009_composed_paths")
    for _ in range(2):
        with transaction.atomic():
            migration.compose_paths(apps, connection.schema_editor())
    for realm, first in ((source.url, b"4"), (PAGE, b"1")):
        stands = {path: data for path, data in shown(realm).items() if path not in make.SITE}
        assert stands == {"caf\u00e9.json": first, "caf\u00e9-2.md": b"2", "caf\u00e9.md": b"3"}
    assert "'cafe\\u0301.md' is 'caf\u00e9-2.md'" in capsys.readouterr().out
    assert web.get(f"{PAGE}cafe%CC%81.json").body == b"1"
    assert "old" in web.get(f"{PAGE}cafe%CC%81", "text/html").text
    with pytest.raises(DatabaseError, match="can only be closed"):
        FileVersion.objects.filter(path="caf\u00e9.json").update(path="other.json")
