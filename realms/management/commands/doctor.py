"""`manage.py doctor`: checks everything that the server needs on the host where the command runs,
and says how to repair each problem."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from realms.coherence.conditions import Severity
from realms.coherence.doctor import Finding, examine
from realms.management.output import note_database

_MARKS = {Severity.FINE: "ok", Severity.WARNING: "note", Severity.PROBLEM: "WRONG"}


class Command(BaseCommand):
    help = (
        "Checks everything that the server needs on this host, such as the settings, the database, "
        "the message broker, the storage, the replicas, the workers and the clocks. Says what to "
        "do about each problem. Changes no data. The exit status is 1 if something is wrong."
    )
    # If Django ran its checks before this command, a wrong setting would end the command. Instead,
    # `examine` runs the checks and reports a wrong setting as a finding.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        note_database()
        findings: list[Finding] = []
        for found in examine():
            findings.append(found)
            if not options["json"]:
                self._print(found)
        if options["json"]:
            self.stdout.write(json.dumps([_document(each) for each in findings], indent=2))
        wrong = sum(each.severity is Severity.PROBLEM for each in findings)
        if wrong:
            if not options["json"]:
                things = "1 thing is" if wrong == 1 else f"{wrong} things are"
                self.stdout.write(f"\n{things} wrong.")
            raise SystemExit(1)
        if not options["json"]:
            self.stdout.write("\nNothing is wrong.")

    def _print(self, found: Finding) -> None:
        self.stdout.write(f"{_MARKS[found.severity]:<6}{found.about:<12}{found.says}")
        if found.severity is not Severity.FINE and found.todo:
            self.stdout.write(f"{'':<18}→ {found.todo}")


def _document(found: Finding) -> dict[str, str]:
    return {
        "about": found.about,
        "severity": found.severity.name.lower(),
        "says": found.says,
        "todo": found.todo,
    }
