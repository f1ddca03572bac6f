"""`manage.py import_realm DIR URL`: copies a folder's files into a source realm."""

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import Progress

from realms.addresses import canonical_realm_url
from realms.management.cli import command_errors
from realms.models import Realm
from realms.publishing.importing import Folder, Imported, files_in, import_files

#: The command prints at most this many paths that the import leaves out, and as many paths that are
#: only in the realm. With `-v 2`, it prints all of them.
SHOWN = 20


class Command(BaseCommand):
    help = "Copies the files of a folder into a source realm. Creates the realm if it is missing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", metavar="DIR", type=Path)
        parser.add_argument("url", metavar="URL", help="the realm's URL")
        parser.add_argument(
            "--owner", help="the owner of a new realm (default: the URL path's first segment)"
        )
        parser.add_argument("--public", action="store_true", help="let everyone read the realm")
        parser.add_argument(
            "--delete",
            action="store_true",
            help="delete the realm's files that the folder lacks; but if the import leaves out a "
            "file or folder, the realm's files at its path stay",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what would change")

    def handle(self, *args: Any, **options: Any) -> None:
        root: Path = options["folder"]
        if not root.is_dir():
            raise CommandError(f"{root} is not a folder")
        with command_errors(), _file_errors():
            url = canonical_realm_url(options["url"])
            folder = files_in(root, url)
            owner = self._owner(url, options["owner"])
            seen = Console(stderr=True)
            with Progress(console=seen, transient=True, disable=not seen.is_terminal) as progress:
                task = progress.add_task(f"{root.name}", total=len(folder.files))
                done = import_files(
                    folder,
                    url,
                    owner=owner,
                    public=options["public"],
                    delete=options["delete"],
                    dry_run=options["dry_run"],
                    progress=lambda path: progress.advance(task),
                )
        self._report(folder, done, options)

    def _report(self, folder: Folder, done: Imported, options: dict[str, Any]) -> None:
        would = "would be " if options["dry_run"] else ""
        if options["verbosity"] > 1 or options["dry_run"]:
            for path in done.written:
                self.stdout.write(f"  {would}written  {path}")
            for path in done.deleted:
                self.stdout.write(f"  {would}deleted  {path}")
        most = None if options["verbosity"] > 1 else SHOWN
        left_out = [f"{path} ({why})" for path, why in folder.left_out.items()]
        self._list("  left out  ", left_out, most)
        self._list("  in the realm and not in the folder  ", done.kept, most)
        self.stdout.write(
            f"{done.url} {would}{'created' if done.created else 'updated'}: "
            f"{len(done.written)} written, {len(done.deleted)} deleted, "
            f"{len(folder.files) - len(done.written)} unchanged, generation {done.generation}"
        )

    def _list(self, title: str, lines: list[str], most: int | None) -> None:
        for line in lines[:most]:
            self.stdout.write(title + line)
        if most is not None and len(lines) > most:
            self.stdout.write(f"{title}and {len(lines) - most} more; -v 2 names all")

    def _owner(self, url: str, name: str | None) -> Any:
        current = Realm.objects.filter(url=url).select_related("owner").first()
        if current is not None and current.kind != Realm.Kind.SOURCE:
            raise CommandError(f"{url} is a {current.kind} realm; only source realms have files")
        if not url.startswith(f"{settings.REALM_PUBLIC_ORIGIN}/"):
            raise CommandError(
                f"{url} is not at this server's origin, {settings.REALM_PUBLIC_ORIGIN}; set "
                "REALM_PUBLIC_ORIGIN to the same value here and for the server"
            )
        if current is not None:
            return current.owner
        name = name or urlsplit(url).path.split("/")[1]
        owner = get_user_model().objects.filter(username=name).first()
        if owner is None:
            raise CommandError(f"there is no user {name!r} to own {url}; give an --owner")
        return owner


@contextmanager
def _file_errors() -> Iterator[None]:
    """Turns the OSError of an unreadable file into a CommandError."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{error.filename} can't be read: {error.strerror}") from error
