"""Names the test that runs each documented command, or the reason why no test can run it."""

from settings.environment import BASE_DIR
from tests.support.runbooks.documented import PAGES, commands

#: The commands that `tests/cluster/documented/test_documented_commands.py` runs, in this order.
#: Each has the form in which the test runs it: without `manage.py`, and with the test's own realms.
RUN: dict[str, tuple[str, ...]] = {
    "deploy/manage migrate": ("migrate",),
    "manage.py migrate": ("migrate",),
    "deploy/manage publish_realm SOURCE PUBLISHED": ("publish_realm {source} {site}",),
    "deploy/manage realms": ("realms",),
    "manage.py realms": ("realms",),
    "manage.py generations [--watch] [--problems] [--json]": (
        "generations",
        "generations --problems",
        "generations --json",
    ),
    "manage.py generations --counters [TEXT]": ("generations ada --counters",),
    "deploy/manage generations": ("generations",),
    "deploy/manage jobs": ("jobs",),
    "manage.py jobs [JOB] [--retry] [--cancel]": ("jobs", "jobs {job}"),
    "manage.py doctor": ("doctor",),
    "deploy/manage doctor": ("doctor",),
    "manage.py clear_caches REALM": ("clear_caches {site}",),
    "deploy/manage clear_caches https://tools.example.net/": ("clear_caches {site}",),
    "manage.py reindex_realm URL": ("reindex_realm {site}",),
    "manage.py reindex_realm URL --full": ("reindex_realm {site} --full",),
    "manage.py reindex_realm URL --no-wait": ("reindex_realm {site} --no-wait",),
    "manage.py cancel_reindex URL": ("cancel_reindex {site}",),
    "deploy/manage listen_file_changes --check": ("listen_file_changes --check",),
    "manage.py listen_file_changes --check": ("listen_file_changes --check",),
    "deploy/manage verify_coherence --once": ("verify_coherence --once",),
    "manage.py verify_coherence --once": ("verify_coherence --once",),
    # By default the command takes a minute.
    "manage.py verify_coherence": ("verify_coherence --seconds 5",),
    "deploy/manage verify_coherence": ("verify_coherence --seconds 5",),
    "manage.py verify_coherence --json": ("verify_coherence --json --seconds 5",),
    "manage.py collect_garbage": ("collect_garbage",),
}  # fmt: skip

#: The curl requests of the same test, and words that each answer must have.
ASKED = {
    "curl http://10.0.0.12:8000/_readiness": '"ready"',
    "curl --include http://10.0.0.12:8000/theme.css --header 'Host: tools.example.net'": (
        "x-realm-generation: "
    ),
}

#: The commands that other tests run: the test, and words that the test's file must have.
ELSEWHERE = {
    "script/faults": ("tests/faults/test_faults.py", "campaign"),
    "script/faults --break no-watermark": ("tests/cluster/freshness/test_teeth.py", "no-watermark"),
    ".venv/bin/pip wheel --no-deps --wheel-dir dist .": (
        "tests/cluster/documented/test_wheel.py",
        "--no-deps",
    ),
    "python3 -m venv /opt/realms": ("tests/cluster/documented/test_wheel.py", "venv"),
    "/opt/realms/bin/pip install realm_server-*.whl": (
        "tests/cluster/documented/test_wheel.py", "install",
    ),
    "realm-server COMMAND": ("tests/cluster/documented/test_wheel.py", "realm-server"),
    "realm-server migrate": ("tests/cluster/documented/test_wheel.py", "migrate"),
    "realm-web --host 10.0.0.11 --port 8000 --workers 4": (
        "tests/cluster/documented/test_wheel.py", "realm-web",
    ),
    "celery -A settings.celery:app worker": (
        "tests/cluster/documented/test_wheel.py", "settings.celery:app",
    ),
    "django-admin COMMAND": ("tests/cluster/documented/test_wheel.py", "django-admin"),
    "script/web --host 10.0.0.11 --port 8000 --workers 4": (
        "tests/cluster/documented/test_readme.py", "script/web",
    ),
    "script/web": ("tests/cluster/documented/test_readme.py", "script/web"),
    ".venv/bin/celery -A settings.celery:app worker": (
        "tests/cluster/documented/test_readme.py", ".venv/bin/celery",
    ),
    ".venv/bin/python manage.py COMMAND": ("tests/cluster/documented/test_readme.py", "manage.py"),
    ".venv/bin/python manage.py": ("tests/cluster/documented/test_readme.py", "manage.py"),
    "deploy/manage listen_file_changes --purge-edge": (
        "tests/http/caches/test_purging.py", "listen_file_changes",
    ),
    "docker-compose config": ("tests/unit/operations/test_deploy.py", "compose"),
}  # fmt: skip

_NO_SYSTEMD = "no systemd runs here; the test checks that the unit is one of ours"
_NO_NETWORK = "it would fetch packages; the test checks that the extra is declared"
_LONG = "it takes minutes on a quiet machine; its options are the script's"

#: Each command that can't be run in a test, and why.
NOT_HERE = {
    "script/bootstrap": "whoever runs the tests has run it",
    "script/faults --seconds 600 --seed 271828 --replicas 3": _LONG,
    "script/faults --no-faults": _LONG,
    "script/bench reindex": _LONG,
    "celery beat": "the page says that it isn't needed",
    "pip install 'realm-server[s3]'": _NO_NETWORK,
    "pip install 'realm-server[tracing]'": _NO_NETWORK,
    ".venv/bin/pip install 'django-storages[s3]'": _NO_NETWORK,
    '.venv/bin/pip install "django-storages[s3]"': _NO_NETWORK,
    "cp deploy/compose.env.example deploy/compose.env": "no container engine is here",
    "docker compose --env-file deploy/compose.env --file deploy/compose.yaml up --build": (
        "no container engine is here; tests/unit/operations/test_deploy.py reads the file"
    ),
    "systemctl restart realms-sidecar": _NO_SYSTEMD,
    "systemctl restart realms-balance": _NO_SYSTEMD,
    "systemctl reload nginx": "no systemd runs here, and the unit is Debian's",
    "systemctl show realms-web realms-sidecar --property EnvironmentFiles": _NO_SYSTEMD,
    "systemctl status realms-worker": _NO_SYSTEMD,
    "systemctl status realms-web": _NO_SYSTEMD,
    "systemctl status postgresql": "no systemd runs here, and the unit is Debian's",
    "journalctl -u realms-sidecar -n 50": _NO_SYSTEMD,
    "journalctl -u realms-worker -n 50": _NO_SYSTEMD,
    "journalctl -u realms-web -n 50": _NO_SYSTEMD,
    "journalctl -u realms-web": _NO_SYSTEMD,
    "journalctl -u realms-balance": _NO_SYSTEMD,
}


def documented() -> set[str]:
    """Every command of the pages for operators."""
    return {each.line for page in PAGES for each in commands(page)}


def text_of(path: str) -> str:
    """The text of a test's file."""
    return (BASE_DIR / path).read_text()
