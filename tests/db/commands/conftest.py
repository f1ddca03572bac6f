"""Fixtures: a realm that can be rolled back, and a function that runs `manage.py` as a process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realms.models import Realm
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.cluster import Cluster

PAGE = "http://ada.localhost:4201/"


@pytest.fixture
def republished(source: Realm) -> Realm:
    """Returns a source realm that was published, changed in two files, and published again."""
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}", new__md=b"new")
    make.publish(source, PAGE)
    return source


@pytest.fixture
def manage(tmp_path: Path) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Returns a function that starts `manage.py` as a process that uses the test's database."""
    (tmp_path / "data").mkdir()
    environment = Cluster(tmp_path / "data", 0, {}).environment

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        command = (sys.executable, str(BASE_DIR / "manage.py"), *arguments)
        return subprocess.Popen(command, cwd=BASE_DIR, env=environment, **options)

    return start
