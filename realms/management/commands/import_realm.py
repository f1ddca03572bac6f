"""`manage.py import_realm DIR URL`: a folder becomes a source realm's content."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import Progress

from realms.commanding import told_plainly
from realms.importing import files_in, import_files
from realms.models import Realm
from realms.urls_and_paths import canonical_realm_url


class Command(BaseCommand):
    help = "Makes a source realm hold the files of a folder. The realm is made if it isn't there."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", metavar="DIR", type=Path)
        parser.add_argument("url", metavar="URL", help="the realm's URL")
        parser.add_argument(
            "--owner", help="who owns a new realm (default: the URL's first path segment)"
        )
        parser.add_argument("--public", action="store_true", help="let everyone read the realm")
        parser.add_argument("--delete", action="store_true", help="delete what the folder lacks")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would change, change nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"]
        if not folder.is_dir():
            raise CommandError(f"{folder} is not a folder")
        with told_plainly():
            url = canonical_realm_url(options["url"])
            files = files_in(folder, url)
            owner = self._owner(url, options["owner"])
            seen = Console(stderr=True)
            with Progress(console=seen, transient=True, disable=not seen.is_terminal) as progress:
                task = progress.add_task(f"{folder.name}", total=len(files))
                done = import_files(
                    files,
                    url,
                    owner=owner,
                    public=options["public"],
                    delete=options["delete"],
                    dry_run=options["dry_run"],
                    progress=lambda path: progress.advance(task),
                )
        would = "would be " if options["dry_run"] else ""
        if options["verbosity"] > 1 or options["dry_run"]:
            for path in done.written:
                self.stdout.write(f"  {would}written  {path}")
            for path in done.deleted:
                self.stdout.write(f"  {would}deleted  {path}")
        self.stdout.write(
            f"{done.url} {would}{'created' if done.created else 'updated'}: "
            f"{len(done.written)} written, {len(done.deleted)} deleted, "
            f"{len(files) - len(done.written)} unchanged, generation {done.generation}"
        )

    def _owner(self, url: str, name: str | None) -> Any:
        standing = Realm.objects.filter(url=url).select_related("owner").first()
        if standing is not None:
            if standing.kind != Realm.Kind.SOURCE:
                raise CommandError(
                    f"{url} is a {standing.kind} realm; only source realms have files"
                )
            return standing.owner
        name = name or urlsplit(url).path.split("/")[1]
        owner = get_user_model().objects.filter(username=name).first()
        if owner is None:
            raise CommandError(f"there is no user {name!r} to own {url}; name one with --owner")
        return owner
