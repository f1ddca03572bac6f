"""`manage.py generations`: lists the realms with their generations, and reports outdated replicas
and pages.

Each change of a realm raises the realm's generation, a number. A replica is a web service that
answers requests. A replica is outdated if it hasn't applied the last change of a realm in time.
A published realm's pages are outdated if they were rendered from an earlier generation.
"""

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.core.paginator import Page
from rich.console import RenderableType

from realms.coherence.conditions import Condition
from realms.coherence.counters import Counter, counters
from realms.coherence.generations import REALMS_PER_PAGE, Matrix, matrix
from realms.management.cli import command_errors
from realms.management.output import note_database, show, table

WATCH_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Says whether any replica or page is outdated, why, and what to do. Then lists the realms. "
        "Realms with outdated replicas or pages come first. For each realm, the list shows the "
        "realm's generation, the generation of its pages, and the generation that each replica "
        "has applied."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "text", nargs="?", default="", help="list only realms with this text in their URL"
        )
        parser.add_argument(
            "--problems", action="store_true", help="list only realms with a problem"
        )
        parser.add_argument(
            "--page",
            help=f"which page of the list to show (default: 1); a page lists {REALMS_PER_PAGE} "
            "realms",
        )
        parser.add_argument(
            "--counters",
            action="store_true",
            help="instead of realms, list the counters that rise when a realm changes or when "
            "definitions of card types are dropped; each with the time and cause of its last rise",
        )
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print JSON")
        form.add_argument(
            "--watch", action="store_true", help="repeat the output every two seconds until Ctrl-C"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        note_database()
        with command_errors():
            if not options["watch"]:
                self._print(options)
                return
            try:
                while True:
                    if self.stdout.isatty():
                        # This text makes the terminal clear its screen and go to the top.
                        self.stdout.write("\x1b[2J\x1b[H", ending="")
                    self._print(options)
                    time.sleep(WATCH_SECONDS)
            except KeyboardInterrupt:
                return

    def _print(self, options: dict[str, Any]) -> None:
        if options["counters"]:
            self._print_counters(options)
            return
        found = matrix(options["text"], options["page"], only_problems=options["problems"])
        if options["json"]:
            self.stdout.write(json.dumps(_document(found), indent=2))
        else:
            show(self.stdout, *_parts(found))

    def _print_counters(self, options: dict[str, Any]) -> None:
        page = counters(options["text"], options["page"])
        if options["json"]:
            self.stdout.write(json.dumps([_counter(each) for each in page], indent=2))
            return
        made = table("kind", "gen", "raised", "by", "of", right=("gen",))
        for each in page:
            at = f"{each.bumped_at:%Y-%m-%d %H:%M:%S}" if each.bumped_at else "-"
            made.add_row(
                each.kind, str(each.generation), at, each.bumped_by or "-", each.key or "everything"
            )
        show(self.stdout, made, *_turning(page))


def _parts(found: Matrix) -> list[RenderableType]:
    parts: list[RenderableType] = [found.summary]
    if found.columns:
        parts += ["", _replicas(found)]
    parts += [f"{each.name}: {each}" for each in found.problems]
    parts += ["", _realms(found)]
    return parts + _turning(found.page)


def _turning(page: "Page[Any]") -> list[RenderableType]:
    if not page.has_other_pages():
        return []
    return [f"Page {page.number} of {page.paginator.num_pages}; --page shows another."]


def _replicas(found: Matrix) -> RenderableType:
    made = table("replica", "state", "watermark", "reported", "missed", right=("missed",))
    for column in found.columns:
        age = column.watermark_age
        made.add_row(
            column.replica.name,
            column.condition.name,
            "none" if age is None else f"{age:.1f} s old",
            f"{column.report_age:.0f} s ago",
            str(column.replica.missed),
        )
    return made


def _realms(found: Matrix) -> RenderableType:
    names = [column.replica.name for column in found.columns]
    made = table("realm", "gen", "pages", *names, right=("gen", "pages", *names))
    for row in found.rows:
        cells = [
            "-" if cell.applied is None else f"{cell.applied}{' !' if cell.behind else ''}"
            for cell in row.cells
        ]
        pages = str(row.head.generation) if row.head else "-"
        marked = pages if row.pages.fine else f"{pages} !"
        made.add_row(row.realm.url.partition("://")[2], str(row.realm.generation), marked, *cells)
    return made


def _document(found: Matrix) -> dict[str, Any]:
    return {
        "at": found.at.isoformat(),
        "summary": found.summary,
        "problems": [_condition(each) for each in found.problems],
        "replicas": [
            {
                "name": column.replica.name,
                "address": column.replica.address,
                "condition": _condition(column.condition),
                "watermarkAgeSeconds": column.watermark_age,
                "reportAgeSeconds": column.report_age,
                "missed": column.replica.missed,
            }
            for column in found.columns
        ],
        "realms": [
            {
                "url": row.realm.url,
                "kind": row.realm.kind,
                "generation": row.realm.generation,
                "pages": row.head.generation if row.head else None,
                "applied": {cell.column.replica.name: cell.applied for cell in row.cells},
            }
            for row in found.rows
        ],
        "page": found.page.number,
        "pages": found.page.paginator.num_pages,
    }


def _counter(each: Counter) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "of": each.key,
        "generation": each.generation,
        "bumpedAt": each.bumped_at.isoformat() if each.bumped_at else None,
        "bumpedBy": each.bumped_by,
    }


def _condition(each: Condition) -> dict[str, str]:
    return {
        "severity": each.severity.name.lower(),
        "name": each.name,
        "means": each.means,
        "visitors": each.visitors,
        "todo": each.todo,
    }
