"""Runs `script/faults`, which is a fault campaign. With `--no-faults`, it instead measures how soon
replicas serve new content."""

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

#: The mechanisms that `--break` can switch off (`broken.py`).
BREAKS = (
    "no-stamp", "no-watermark", "no-epoch", "late-listen", "pin-ignored", "early-notify",
    "no-definition-guard", "unchecked-swap", "no-outbox", "late-edge",
)  # fmt: skip
#: The only mechanism in BREAKS that belongs to nginx and not to the fleet's processes.
LATE_EDGE = "late-edge"


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="script/faults",
        description="Starts a real fleet, injects faults while clients write, publish and read, "
        "and compares every answer with what was committed at that time. Exits with status 1 if "
        "the fleet broke a promise of the README.",
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="the duration in seconds (default: 60)"
    )
    parser.add_argument(
        "--seed",
        help="the seed of an earlier campaign, to repeat its random choices but not its timing",
    )
    parser.add_argument(
        "--replicas", type=int, choices=range(1, 9), metavar="R",
        help="the number of replicas, 1 to 8 (default: 3, or 4 with --no-faults)",
    )  # fmt: skip
    parser.add_argument(
        "--break", dest="broken", choices=BREAKS, default="", metavar="NAME",
        help=f"switch off one mechanism, so that the campaign must fail: {', '.join(BREAKS)}",
    )  # fmt: skip
    parser.add_argument(
        "--no-faults", action="store_true",
        help="cause no faults, and compare how soon replicas and bare listeners (processes that "
        "only execute LISTEN) notice a commit",
    )  # fmt: skip
    parser.add_argument(
        "--edge", action=argparse.BooleanOptionalAction,
        help="let some clients read through nginx, with deploy/nginx.conf (default: if nginx is "
        "installed)",
    )  # fmt: skip
    asked = parser.parse_args()
    installed = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None
    if not installed and (asked.edge or asked.broken == LATE_EDGE):
        parser.error("nginx is not installed, so no client can read through it")
    asked.missing = "" if installed or asked.edge is False else "nginx is not installed."
    asked.edge = installed if asked.edge is None else asked.edge
    asked.seed = asked.seed or f"{random.SystemRandom().randrange(10**6):06}"
    asked.replicas = asked.replicas or (4 if asked.no_faults else 3)
    return asked


def main() -> int:
    """Runs a campaign or a measurement, and returns the exit status."""
    asked = arguments()
    with tempfile.TemporaryDirectory(prefix="realm-faults-") as name:
        folder = Path(name)
        # Postgres may run as another user, who must be able to enter the folder.
        folder.chmod(0o755)
        _prepare(folder)
        from tests.faults import latency, report

        if asked.no_faults:
            return latency.measure(folder, asked.seconds, asked.replicas)
        return report.campaign(folder, asked)


def _prepare(folder: Path) -> None:
    """Sets up Django for the database that the campaign will create in `folder`."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ["DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    os.environ["REALM_DATA_DIR"] = str(folder)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    # At the level INFO, the log lines of publishes would hide the campaign's output.
    os.environ.setdefault("REALM_LOG_LEVEL", "WARNING")
    for name in ("LISTEN_DATABASE_URL", "CELERY_BROKER_URL"):
        os.environ.pop(name, None)
    import django

    django.setup()


if __name__ == "__main__":
    sys.exit(main())
