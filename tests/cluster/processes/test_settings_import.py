"""Tests that importing the settings writes no files, and that the secret seed is made once, at its
first use. The server derives the keys of its signatures from the seed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from settings.environment import BASE_DIR
from settings.secrets import secret_seed

# Most tests start processes. This takes seconds, because each process imports the settings anew.
pytestmark = pytest.mark.cluster

#: A program that makes one signature of each kind that the server uses. With arguments, the program
#: verifies the signatures that another process made.
SIGNING = """
import sys, django
django.setup()
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core import signing
from django.conf import settings
from realms.access import auth
from reindex.reading import pins

ada = User(pk=1, username="ada", password="x")
pin = pins.Pin("http://localhost:4201/ada/site/", 7)
if len(sys.argv) == 1:
    print(auth._sign({"user": "@ada:localhost"}, 60, 1))
    print(pins.sign(pin))
    print(SessionStore().encode({"who": "ada"}))
    print(signing.get_cookie_signer(salt="s").sign("ada"))
    print(ada.get_session_auth_hash())
    print(default_token_generator.make_token(ada))
else:
    token, signed, session, cookie, session_hash, reset = sys.argv[1:]
    assert auth._claims(token)["user"] == "@ada:localhost"
    assert pins.read(signed).pin == pin
    assert SessionStore().decode(session) == {"who": "ada"}
    assert signing.get_cookie_signer(salt="s").unsign(cookie) == "ada"
    assert ada.get_session_auth_hash() == session_hash
    assert default_token_generator.check_token(ada, reset)
"""
#: Programs that import the settings but don't use the secret seed.
IMPORTS = {
    "the settings": "import settings",
    "Django": "import django; django.setup(); import settings.urls",
    "Celery": "from settings.celery import app; app.loader.import_default_modules();"
    "app.conf.broker_url",
    "a command": "import sys; from realms.management.entry import main; sys.argv[1:] = ['check'];"
    "main()",
}


def run(folder: Path, code: str, *arguments: str) -> str:
    left = {k: v for k, v in os.environ.items() if not k.startswith(("REALM_", "CELERY_"))}
    environment = {
        **left, "REALM_DATA_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=BASE_DIR, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("what", IMPORTS)
def test_an_import_writes_nothing_to_the_disk(what: str, tmp_path: Path) -> None:
    run(tmp_path / "data", IMPORTS[what])
    assert list(tmp_path.iterdir()) == []


def test_processes_accept_each_others_signatures_with_a_generated_seed(tmp_path: Path) -> None:
    signed = run(tmp_path, SIGNING).split()
    assert [path.name for path in tmp_path.iterdir()] == ["secret-seed"]
    assert (tmp_path / "secret-seed").stat().st_mode & 0o777 == 0o600
    run(tmp_path, SIGNING, *signed)


def test_processes_that_start_together_agree_on_a_seed(tmp_path: Path) -> None:
    show = "from django.conf import settings; print(settings.REALM_SECRET_SEED)"
    folder = tmp_path / "data"
    with ThreadPoolExecutor(4) as pool:
        seeds = list(pool.map(lambda _: run(folder, show), range(4)))
    assert len(set(seeds)) == 1 and len(seeds[0].strip()) == 64
    assert [path.name for path in folder.iterdir()] == ["secret-seed"]


def test_threads_that_need_a_seed_at_the_same_time_agree_on_it(tmp_path: Path) -> None:
    make = secret_seed.__wrapped__
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(lambda _, at=folder: make(at), range(8)))) == 1
        assert [path.name for path in folder.iterdir()] == ["secret-seed"]
