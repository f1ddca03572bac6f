"""Imports the files of a folder on this machine into a source realm."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from notifications.texts import composed
from realms.access.permissions import readers_change
from realms.addresses import check_path, same_name
from realms.content.blobs import Stored, store_blob
from realms.content.borders import outer_urls
from realms.content.files import check_quota, check_size, delete_files, write_stored
from realms.content.history import versions_at
from realms.content.locks import realm_write_lock
from realms.errors import Conflict
from realms.models import EVERYONE, FileVersion, Realm, RealmPermission
from realms.publishing.publish import make_realm
from realms.publishing.rights import check_not_reserved

_SKIPPED_FOLDERS = {"node_modules", "__pycache__"}
#: An import leaves out hidden folders, except this one, because its files are meant for visitors
#: (RFC 8615).
_WELL_KNOWN = ".well-known"


@dataclass(frozen=True)
class Folder:
    """What an import finds in a folder. `files` maps the paths of the files to import to their
    places on the disk. `left_out` maps each path that the import leaves out to the reason."""

    files: dict[str, Path]
    left_out: dict[str, str]

    def leaves_out(self, path: str) -> bool:
        """Returns whether the import leaves out `path` or a folder that contains `path`."""
        parts = path.split("/")
        return any("/".join(parts[: end + 1]) in self.left_out for end in range(len(parts)))


@dataclass(frozen=True)
class Imported:
    """The result of an import or of its dry run."""

    url: str
    created: bool
    written: list[str]
    deleted: list[str]
    generation: int
    #: The files that stay in the realm although they aren't in the folder.
    kept: list[str]


def files_in(folder: Path, realm_url: str) -> Folder:
    """Finds the files to import in a folder. Leaves out folders named `node_modules` and
    `__pycache__`, symbolic links, and special files such as sockets. Also leaves out files and
    folders with a name that begins with a dot, except `.well-known` directly in `folder`. Raises
    InvalidPath for a path that isn't allowed in a realm. Raises Conflict if two paths differ only
    in Unicode composition."""
    left_out: dict[str, str] = {}
    files: dict[str, Path] = {}
    for file in sorted(_walk(folder, folder, left_out)):
        name = file.relative_to(folder).as_posix()
        path = check_path(name, realm_url)
        if path in files:
            raise Conflict(what=same_name(files[path].relative_to(folder).as_posix(), name))
        files[path] = file
    return Folder(files, dict(sorted(left_out.items())))


def _walk(root: Path, folder: Path, left_out: dict[str, str]) -> Iterator[Path]:
    for entry in folder.iterdir():
        why = _why_left_out(entry, at_root=folder == root)
        if why:
            left_out[composed(entry.relative_to(root).as_posix())] = why
        elif entry.is_dir():
            yield from _walk(root, entry, left_out)
        else:
            yield entry


def _why_left_out(entry: Path, *, at_root: bool) -> str:
    """Returns the reason why an import leaves out an entry of a folder. Returns an empty text if
    the import doesn't leave out the entry."""
    if entry.is_symlink():
        return "a symbolic link"
    if entry.name.startswith(".") and not (at_root and entry.name == _WELL_KNOWN):
        return "hidden"
    if entry.is_dir():
        return "made by tools" if entry.name in _SKIPPED_FOLDERS else ""
    return "" if entry.is_file() else "not a file"


def import_files(
    folder: Folder,
    url: str,
    *,
    owner: Any,
    public: bool = False,
    delete: bool = False,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda path: None,
) -> Imported:
    """Writes a folder's files to the realm at `url`. Creates the realm if it is missing. With
    `public`, lets everyone read the realm. With `delete`, first deletes the realm's files that the
    folder lacks, except at paths that the import leaves out. With `dry_run`, nothing changes.
    After an error (one of `realms.errors`, or OSError), the realm is unchanged."""
    check_not_reserved(url)
    # All content is stored before the realm is locked, so the lock is held only briefly.
    stored: dict[str, Stored] = {}
    for path, file in folder.files.items():
        data = file.read_bytes()
        check_size(path, data)
        stored[path] = Stored("" if dry_run else store_blob(data), len(data))
        progress(path)
    if dry_run:
        return _compared(folder, url, delete)
    with realm_write_lock(url, *outer_urls(url)):
        realm = Realm.objects.filter(url=url).first()
        created = realm is None
        if realm is None:
            realm = make_realm(url, Realm.Kind.SOURCE, owner)
        elif realm.kind != Realm.Kind.SOURCE:
            raise Conflict(what=f"{url} is a {realm.kind} realm; only source realms have files")
        if public:
            with readers_change(realm):
                RealmPermission.objects.update_or_create(
                    realm=realm, audience=EVERYONE, defaults={"read": True}
                )
        before = dict(versions_at(realm, realm.generation).values_list("path", "blob_id"))
        deleted, kept = _deleted_and_kept(before, folder, delete)
        # Delete files before writing files, so that the new files fit into the realm's quota.
        if deleted:
            delete_files(realm, deleted)
        write_stored(realm, stored)
    written = [path for path, each in stored.items() if before.get(path) != each.sha256]
    return Imported(url, created, written, deleted, realm.generation, kept)


def _deleted_and_kept(
    before: Iterable[str], folder: Folder, delete: bool
) -> tuple[list[str], list[str]]:
    """Returns two lists with the paths that are in the realm (`before`) but not in the folder. The
    import deletes the files in the first list, and keeps the files in the second list."""
    lacking = sorted(set(before) - set(folder.files))
    deleted = [path for path in lacking if delete and not folder.leaves_out(path)]
    return deleted, sorted(set(lacking) - set(deleted))


def _compared(folder: Folder, url: str, delete: bool) -> Imported:
    """Returns the result that the import would have, but with the realm's present generation (0 if
    the realm is missing). Raises OverQuota if the import would exceed the realm's quota."""
    files = folder.files
    realm = Realm.objects.filter(url=url).first()
    versions = versions_at(realm, realm.generation) if realm else FileVersion.objects.none()
    before = {path: (sha, size) for path, sha, size in versions.values_list("path", "blob", "size")}
    deleted, kept = _deleted_and_kept(before, folder, delete)
    written = [
        path for path, file in files.items()
        if path not in before or before[path][0] != sha256(file.read_bytes()).hexdigest()
    ]  # fmt: skip
    freed = [before[path][1] for path in (*deleted, *written) if path in before]
    check_quota(
        realm or Realm(url=url),
        len(written) - len(freed),
        sum(files[path].stat().st_size for path in written) - sum(freed),
    )
    return Imported(url, realm is None, written, deleted, realm.generation if realm else 0, kept)
