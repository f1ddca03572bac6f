"""A folder of files as a realm's content."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from realms.content import Stored, check_size, delete_files, store_blob, versions_at, write_stored
from realms.errors import Conflict
from realms.locks import realm_write_lock
from realms.models import EVERYONE, Realm, RealmPermission
from realms.publishing import check_not_reserved, make_realm
from realms.urls_and_paths import check_path
from reindex import jobs

_SKIPPED_FOLDERS = {"node_modules", "__pycache__"}


@dataclass(frozen=True)
class Imported:
    """What an import changed, or would change."""

    url: str
    created: bool
    written: list[str]
    deleted: list[str]
    generation: int


def files_in(folder: Path, realm_url: str) -> dict[str, Path]:
    """The files that an import takes, by path. Hidden files and folders, `node_modules` and
    symbolic links are left out. Raises InvalidPath for a name that no file of a realm may have."""
    return {
        check_path(file.relative_to(folder).as_posix(), realm_url): file
        for file in sorted(_walk(folder))
    }


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir() and entry.name not in _SKIPPED_FOLDERS:
            yield from _walk(entry)
        elif entry.is_file():
            yield entry


def import_files(
    files: dict[str, Path],
    url: str,
    *,
    owner: Any,
    public: bool = False,
    delete: bool = False,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda path: None,
) -> Imported:
    """Makes the realm hold these files, in one generation; the realm is made if it isn't there.

    `delete` also removes what the folder lacks. Content is stored before the lock is taken, so the
    realm is locked for moments only. Raises one of `realms.errors`; then nothing has changed.
    """
    check_not_reserved(url)
    stored: dict[str, Stored] = {}
    for path, file in files.items():
        data = file.read_bytes()
        check_size(path, data)
        stored[path] = Stored("" if dry_run else store_blob(data), len(data))
        progress(path)
    if dry_run:
        return _compared(files, url, delete)
    with realm_write_lock(url):
        realm = Realm.objects.filter(url=url).first()
        created = realm is None
        if realm is None:
            realm = make_realm(url, Realm.Kind.SOURCE, owner)
        elif realm.kind != Realm.Kind.SOURCE:
            raise Conflict(what=f"{url} is a {realm.kind} realm; only source realms have files")
        if public:
            RealmPermission.objects.update_or_create(
                realm=realm, audience=EVERYONE, defaults={"read": True}
            )
            jobs.tell_dependents(url, opened=True)
        before = dict(versions_at(realm, realm.generation).values_list("path", "blob_id"))
        write_stored(realm, stored)
        gone = sorted(set(before) - set(stored)) if delete else []
        if gone:
            delete_files(realm, gone)
    written = [path for path, kept in stored.items() if before.get(path) != kept.sha256]
    return Imported(url, created, written, gone, realm.generation)


def _compared(files: dict[str, Path], url: str, delete: bool) -> Imported:
    realm = Realm.objects.filter(url=url).first()
    if realm is None:
        return Imported(url, True, list(files), [], 0)
    before = dict(versions_at(realm, realm.generation).values_list("path", "blob_id"))
    written = [
        path for path, file in files.items()
        if before.get(path) != sha256(file.read_bytes()).hexdigest()
    ]  # fmt: skip
    gone = sorted(set(before) - set(files)) if delete else []
    return Imported(url, False, written, gone, realm.generation)
