"""A folder of files as a realm's content."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from realms.borders import outer_urls
from realms.content import (
    Stored,
    check_quota,
    check_size,
    delete_files,
    store_blob,
    versions_at,
    write_stored,
)
from realms.errors import Conflict
from realms.locks import realm_write_lock
from realms.models import EVERYONE, FileVersion, Realm, RealmPermission
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
    with realm_write_lock(url, *outer_urls(url)):
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
        gone = sorted(set(before) - set(stored)) if delete else []
        # First, or there may not be room for what takes their place.
        if gone:
            delete_files(realm, gone)
        write_stored(realm, stored)
    written = [path for path, kept in stored.items() if before.get(path) != kept.sha256]
    return Imported(url, created, written, gone, realm.generation)


def _compared(files: dict[str, Path], url: str, delete: bool) -> Imported:
    """What an import would change. Raises OverQuota where it would be refused."""
    realm = Realm.objects.filter(url=url).first()
    there = versions_at(realm, realm.generation) if realm else FileVersion.objects.none()
    before = {path: (sha, size) for path, sha, size in there.values_list("path", "blob", "size")}
    gone = sorted(set(before) - set(files)) if delete else []
    written = [
        path for path, file in files.items()
        if path not in before or before[path][0] != sha256(file.read_bytes()).hexdigest()
    ]  # fmt: skip
    left = [before[path][1] for path in (*gone, *written) if path in before]
    check_quota(
        realm or Realm(url=url),
        len(written) - len(left),
        sum(files[path].stat().st_size for path in written) - sum(left),
    )
    return Imported(url, realm is None, written, gone, realm.generation if realm else 0)
