"""Maintains the base realm, the only realm of the kind `bootstrap`. It contains the card library,
which authors' modules import as `@realm/base`."""

from pathlib import Path
from typing import Any

from django.conf import settings

from definitions.lookup import DefinitionLookup
from realms.content.files import delete_files, write_files
from realms.content.history import versions_at
from realms.content.locks import realm_write_lock
from realms.errors import Conflict
from realms.models import EVERYONE, Realm, RealmPermission
from realms.publishing.publish import make_realm
from reindex.reading.references import BASE_REALM

FOLDER = Path(settings.TYPESCRIPT_DIR) / "card_library"


def sync_base_realm(**_: Any) -> None:
    """Makes the files of the base realm equal to the card library of this release, without the
    library's tests. If the files are equal already, changes nothing. `manage.py migrate` calls this
    function. Raises Conflict if a realm of another kind has the base realm's URL."""
    files = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.is_file() and not path.stem.endswith("_test")
    }
    with realm_write_lock(BASE_REALM):
        realm = Realm.objects.filter(url=BASE_REALM).first()
        if realm is None:
            realm = make_realm(BASE_REALM, Realm.Kind.BOOTSTRAP, None)
            RealmPermission.objects.create(realm=realm, audience=EVERYONE, read=True)
        elif realm.kind != Realm.Kind.BOOTSTRAP:
            raise Conflict(what=f"{BASE_REALM} is a {realm.kind} realm, not the card library")
        before = realm.generation
        write_files(realm, files)
        gone = set(versions_at(realm, realm.generation).values_list("path", flat=True)) - set(files)
        if gone:
            delete_files(realm, gone)
        if realm.generation != before:
            DefinitionLookup().clear_realm_definitions(BASE_REALM, by="new release")
