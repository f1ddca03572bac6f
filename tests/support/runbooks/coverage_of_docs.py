"""Says for each documented command which test runs it, or why no test runs it."""

from settings.environment import BASE_DIR
from tests.support.runbooks.documented import PAGES, commands

#: The documented commands that `tests/cluster/documented/test_documented_commands.py` runs, in this
#: order. Maps each documented command to the command lines that the test runs. The command lines
#: omit `manage.py`, and use the test's own realms.
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
    # Without `--seconds` the command takes a minute.
    "manage.py verify_coherence": ("verify_coherence --seconds 5",),
    "deploy/manage verify_coherence": ("verify_coherence --seconds 5",),
    "manage.py verify_coherence --json": ("verify_coherence --json --seconds 5",),
    "manage.py collect_garbage": ("collect_garbage",),
}  # fmt: skip

#: The documented curl commands that `tests/cluster/documented/test_documented_commands.py` runs.
#: Maps each documented command to a text that the command's output must contain.
ASKED = {
    "curl http://10.0.0.12:8000/_readiness": '"ready"',
    "curl --include http://10.0.0.12:8000/theme.css --header 'Host: tools.example.net'": (
        "x-realm-generation: "
    ),
}

#: The documented commands that `tests/cluster/documented/test_scripts.py` runs in a fresh clone, in
#: this order. Maps each documented command to the command line that the test runs. If the
#: documented command takes minutes, the test runs a faster variant. `{place}` is an empty folder.
IN_CLONE = {
    "script/bootstrap": "script/bootstrap",
    "script/demo --check": "script/demo --check",
    "script/lint": "script/lint",
    ".venv/bin/pre-commit install": ".venv/bin/pre-commit install",
    "script/test --unit": "script/test --unit",
    "script/test tests/db/locks/test_locks.py -k sorted": (
        "script/test tests/db/locks/test_locks.py -k sorted"
    ),
    ".venv/bin/deno check --config examples/deno.json examples/*/*.tsx": (
        ".venv/bin/deno check --config examples/deno.json examples/*/*.tsx"
    ),
    "script/faults": "script/faults --seconds 10",
    "script/faults --seconds 30 --seed 7": "script/faults --seconds 10 --seed 7",
    "script/faults --seconds 600 --seed 271828 --replicas 3": (
        "script/faults --seconds 10 --seed 271828 --replicas 3"
    ),
    "script/faults --no-faults": "script/faults --no-faults --seconds 5",
    "script/bench --list": "script/bench --list",
    "script/bench NAME --help": "script/bench serve --help",
    "script/bench serve --runs 5": "script/bench serve --runs 5 --quick",
    "script/bench reindex": "script/bench reindex --quick",
    "script/bench hostile": "script/bench hostile --quick",
    ".venv/bin/python -m bench.support.page": ".venv/bin/python -m bench.support.page",
    "script/bench fleet budget": "script/bench fleet budget --quick",
    "script/bench fleet notify": "script/bench fleet notify --quick",
    "script/bench fleet notify --seconds 3": "script/bench fleet notify --seconds 3 --quick",
    "script/bench fleet connections": "script/bench fleet connections --quick",
    "script/bench fleet manifest": "script/bench fleet manifest --quick",
    "script/bench fleet wan": "script/bench fleet wan --quick",
    "script/bench fleet wan --changes 40 --publishes 10 --seconds 20": (
        "script/bench fleet wan --changes 4 --publishes 1 --seconds 2"
    ),
    "script/release_content.py": (
        "REALM_DATA_DIR={place}/release .venv/bin/python script/release_content.py"
    ),
    "script/dump_release.py": (
        "REALM_DATA_DIR={place}/release .venv/bin/python script/dump_release.py {place}/it.tar.gz"
    ),
    ".venv/bin/pip install 'django-storages[s3]'": ".venv/bin/pip install 'django-storages[s3]'",
    '.venv/bin/pip install "django-storages[s3]"': '.venv/bin/pip install "django-storages[s3]"',
    'pip install "django-storages[s3]"': '.venv/bin/pip install "django-storages[s3]"',
    ".venv/bin/pip wheel --no-deps --wheel-dir dist .": (
        ".venv/bin/pip wheel --no-deps --wheel-dir dist ."
    ),
    "python3 -m venv /opt/realms": "python3 -m venv {place}/opt",
    "/opt/realms/bin/pip install realm_server-*.whl": (
        "{place}/opt/bin/pip install dist/realm_server-*.whl"
    ),
    "pip install 'realm-server[s3]'": (
        "{place}/opt/bin/pip install --find-links dist 'realm-server[s3]'"
    ),
    "pip install 'realm-server[tracing]'": (
        "{place}/opt/bin/pip install --find-links dist 'realm-server[tracing]'"
    ),
}

#: The documented commands that other tests and scripts run. The outer key is the path of the test
#: or script. The inner dictionary maps each documented command to a text that the test or script
#: must contain.
ELSEWHERE: dict[str, dict[str, str]] = {
    ".ci/run": {
        "script/test": "script/test",
        "script/bench --quick": "script/bench --quick",
        "script/bench": "script/bench --quick",
    },
    "tests/cluster/freshness/test_teeth.py": {
        "script/faults --break NAME": "no-watermark",
        "script/faults --break no-watermark": "no-watermark",
    },
    "tests/cluster/documented/test_readme.py": {
        ".venv/bin/python manage.py migrate": '"migrate"',
        ".venv/bin/python manage.py listen_file_changes": "listen_file_changes",
        ".venv/bin/celery -A settings.celery:app worker --concurrency 4": ".venv/bin/celery",
        "manage.py listen_file_changes": "listen_file_changes",
        "manage.py generations": '"generations"',
        "manage.py clear_caches URL": "clear_caches",
        "manage.py jobs": '"jobs"',
        "manage.py import_realm DIR URL": "import_realm",
        "manage.py publish_realm SOURCE PUBLISHED": "publish_realm",
        "manage.py rollback_realm URL": "rollback_realm",
        "manage.py unpublish_realm URL": "unpublish_realm",
        "manage.py check --deploy": "check --deploy",
        "manage.py listen_file_changes [--check]": "listen_file_changes --check",
        "script/web --port 4201": "script/web",
        "script/web --host 10.0.0.11 --port 8000 --workers 4": "script/web",
        "script/web": "script/web",
        ".venv/bin/celery -A settings.celery:app worker": ".venv/bin/celery",
        ".venv/bin/python manage.py COMMAND": "manage.py",
        ".venv/bin/python manage.py": "manage.py",
    },
    "script/lint": {
        "manage.py makemigrations": "makemigrations",
    },
    "tests/cluster/documented/test_tutorial.py": {
        "script/demo": "script/demo",
        ".venv/bin/deno check sites/films/*.tsx": "PAGE",
        ".venv/bin/python manage.py import_realm sites/films"
        " http://localhost:4201/demo/films/ --public": "PAGE",
        ".venv/bin/python manage.py publish_realm http://localhost:4201/demo/films/"
        " http://films.localhost:4201/": "PAGE",
        ".venv/bin/python manage.py unpublish_realm http://films.localhost:4201/": "PAGE",
    },
    "tests/render/test_search_realms.py": {
        "curl -X QUERY http://ada.localhost:4201/_search -d '{": "docs/reference/search.md",
        "curl -g 'http://ada.localhost:4201/_search?filter[eq][by.name]=Ada&page[size]=10'": (
            "docs/reference/search.md"
        ),
    },
    "tests/cluster/documented/test_fleet_measured.py": {
        "script/bench fleet NAME": "bench.fleet",
        "script/bench fleet standby": "standby",
        "script/bench fleet standby --changes 30": "standby",
        "script/bench fleet quorum": "quorum",
        "script/bench fleet quorum --cards 50 --repeat 5": "quorum",
    },
    "tests/cluster/documented/test_wheel.py": {
        "realm-server COMMAND": "realm-server",
        "realm-server migrate": "migrate",
        "realm-web --host 10.0.0.11 --port 8000 --workers 4": "realm-web",
        "celery -A settings.celery:app worker": "settings.celery:app",
        "django-admin COMMAND": "django-admin",
    },
    "tests/http/caches/test_purging.py": {
        "deploy/manage listen_file_changes --purge-edge": "listen_file_changes",
    },
    "tests/cluster/documented/test_containers.py": {
        "cp deploy/compose.env.example deploy/compose.env": (
            "cp deploy/compose.env.example deploy/compose.env"
        ),
        "docker compose --env-file deploy/compose.env --file deploy/compose.yaml up --build": (
            "docker compose --env-file deploy/compose.env --file deploy/compose.yaml up --build"
        ),
        "docker compose --env-file deploy/compose.env --file deploy/compose.yaml"
        " exec web-1 .venv/bin/python manage.py COMMAND": (
            "exec web-1 .venv/bin/python manage.py COMMAND"
        ),
    },
    "tests/cluster/documented/test_systemd.py": {
        command: f'"{command}"'
        for command in (
            "systemctl restart realms-sidecar",
            "systemctl restart realms-balance",
            "systemctl reload nginx",
            "systemctl show realms-web realms-sidecar --property EnvironmentFiles",
            "systemctl status realms-worker",
            "systemctl status realms-web",
            "systemctl status postgresql@15-main",
            "journalctl -u realms-sidecar -n 50",
            "journalctl -u realms-worker -n 50",
            "journalctl -u realms-web -n 50",
            "journalctl -u realms-web",
            "journalctl -u realms-balance",
        )
    },
}  # fmt: skip

#: Texts that look like commands but need not be run, each with the reason.
NOT_HERE = {
    "celery beat": "the page says that nobody needs to start it",
    "cp -a": "the page says that a benchmark runs it for comparison",
    "script/test --hosts": "this command itself runs the tests that run documented commands",
}


def documented() -> set[str]:
    """Returns all commands in the pages of the documentation."""
    return {each.line for page in PAGES for each in commands(page)}


def text_of(path: str) -> str:
    """Returns the text of a test or script."""
    return (BASE_DIR / path).read_text()
