"""Tests that the installed wheel is a complete realm server that needs no file of the clone.

The processes of the server start from a new virtual environment, in an empty folder. The new
environment shares the libraries of the tests' environment, because installing the libraries would
take minutes and need the network.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path

import psutil
import pytest
from deno import find_deno_bin

from notifications.board import Board
from reindex.prerender.renderer import renderer
from settings.embedded.server import stop_if_unused
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.cluster import free_ports, wait_until
from tests.support.servers.reaper import mark
from tests.support.web import ask

# The tests take 25 s. They build and install the wheel, make an embedded Postgres, and run a
# replica and a worker. The tests run all these processes, because each process could need a file
# that the wheel lacks.
pytestmark = pytest.mark.cluster

#: The libraries with the scripts that start the services. In the tests' environment, these scripts
#: start the tests' own Python. So `bin_folder` writes scripts that start the new environment's
#: Python.
SCRIPTS = ("celery", "granian")
PACKAGES = ("notifications", "definitions", "reindex", "realms", "settings")
#: Folders that must not be in the wheel.
ASIDE = ("tests/", "bench/", "examples/", "script/", "docs/")
LIBRARY = BASE_DIR / "card_library"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds a wheel of this clone without network access. Returns the wheel's path."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(BASE_DIR))
    (built,) = folder.glob("realm_server-*.whl")
    return built


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the wheel in a new virtual environment. Returns the environment's `bin` folder."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    commands, python = folder / "bin", folder / "bin" / "python"
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (libraries / "shared.pth").write_text(
        "\n".join(each for each in sys.path if "-packages" in each)
    )
    pip("--python", str(python), "install", "--no-index", "--no-deps", str(wheel))
    (commands / "deno").symlink_to(find_deno_bin())
    for name in (*SCRIPTS, "django-admin"):
        package = "Django" if name == "django-admin" else name
        (entry,) = distribution(package).entry_points.select(group="console_scripts", name=name)
        first = entry.attr.partition(".")[0]
        script = f"import sys\nfrom {entry.module} import {first}\nsys.exit({entry.attr}())\n"
        (commands / name).write_text(f"#!{python}\n{script}")
        (commands / name).chmod(0o755)
    return commands


@pytest.fixture
def place() -> Iterator[Path]:
    """Yields an empty working directory for the server's processes. All users may enter the folder,
    because the embedded Postgres runs as another user if root starts it."""
    with tempfile.TemporaryDirectory(prefix="realm-wheel-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "place"
        folder.mkdir()
        yield folder


@pytest.fixture
def environment(bin_folder: Path, place: Path) -> dict[str, str]:
    """Returns the environment variables of an operator who sets only the server's addresses."""
    (port,) = free_ports(1)
    return {
        "PATH": f"{bin_folder}:/usr/bin:/bin",
        "HOME": str(place.parent),
        "DJANGO_SETTINGS_MODULE": "settings",
        "REALM_PUBLIC_ORIGIN": f"http://localhost:{port}",
        "REALM_REPLICA_ADDRESS": f"http://127.0.0.1:{port}",
        **mark(),
    }


@pytest.fixture
def services(bin_folder: Path, place: Path, environment: dict[str, str]) -> Iterator[int]:
    """Runs a replica and a worker on a migrated database. Yields the web service's port."""
    port = int(environment["REALM_REPLICA_ADDRESS"].rpartition(":")[2])
    run(bin_folder, place, environment, "django-admin", "migrate", "--verbosity", "0")
    commands = (
        ("realm-web", "--port", str(port)),
        ("realm-server", "listen_file_changes"),
        ("celery", "-A", "settings.celery:app", "worker", "--concurrency", "1"),
    )
    running = []
    for command, *arguments in commands:
        with open(place.parent / f"{command}.log", "wb") as log:
            running.append(
                subprocess.Popen(
                    [bin_folder / command, *arguments], cwd=place, env=environment, stdout=log,
                    stderr=log, start_new_session=True,
                )
            )  # fmt: skip
    try:
        wait_until(lambda: ended(running) or answers(port), "the web service answers", 60)
        board = Board(place / ".data" / "board")
        wait_until(lambda: ended(running) or board.live(), "the sidecar makes the board live", 60)
        assert not ended(running)
        yield port
    finally:
        families = [
            child
            for each in running
            if each.poll() is None
            for child in psutil.Process(each.pid).children(recursive=True)
        ]
        for process in running:
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
        psutil.wait_procs(families, timeout=5)
        for child in families:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        for process in running:
            process.kill()
            process.wait()
        stop_if_unused(place / ".data")


def test_the_wheel_has_all_runtime_files_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert [name for name in names if name.startswith(ASIDE)] == []
    files = (path for package in PACKAGES for path in (BASE_DIR / package).rglob("*"))
    wanted = {
        str(path.relative_to(BASE_DIR))
        for path in files
        if path.is_file() and not {"__pycache__", "deno"} & set(path.parts)
    }
    assert wanted - names == set()
    library = {f"settings/typescript/card_library/{path.name}" for path in LIBRARY.iterdir()}
    assert library - names == set()


def test_the_installed_commands_run_checks_and_print_help(
    bin_folder: Path, place: Path, environment: dict[str, str]
) -> None:
    said = run(bin_folder, place, environment, "django-admin", "check")
    assert "no issues" in said
    said = run(bin_folder, place, environment, "realm-server", "collect_garbage", "--help")
    assert "usage: realm-server collect_garbage" in said
    assert "usage: realm-web" in run(bin_folder, place, environment, "realm-web", "--help")


def test_an_installation_has_the_same_renderer_as_the_clone(
    bin_folder: Path, place: Path, environment: dict[str, str]
) -> None:
    """`renderer` returns a hash of the code that renders cards. If the hashes of the clone and the
    installation differed, a fleet with both would render all cards again in each job."""
    code = (
        "import django; django.setup(); from reindex.prerender import renderer as r;"
        "print(r.__file__, r.renderer())"
    )
    file, known = run(bin_folder, place, environment, "python", "-c", code).split()
    assert Path(file).is_relative_to(bin_folder.parent)
    assert known == renderer()


def test_an_installation_imports_publishes_and_renders_a_realm(
    bin_folder: Path, place: Path, environment: dict[str, str], services: int
) -> None:
    origin = environment["REALM_PUBLIC_ORIGIN"]
    source, site = f"{origin}/ada/site/", f"http://ada.localhost:{services}/"
    user = {**environment, "DJANGO_SUPERUSER_PASSWORD": "a long word of ada's"}
    run(bin_folder, place, user, "django-admin", "createsuperuser", "--noinput",
        "--username", "ada", "--email", "ada@example.com")  # fmt: skip
    folder = place.parent / "site"
    folder.mkdir()
    for path, data in make.SITE.items():
        (folder / path).write_bytes(data)
    manage = (bin_folder, place, environment, "realm-server")
    run(*manage, "import_realm", str(folder), source, "--public")
    assert "rendered" in run(*manage, "publish_realm", source, site)
    page = ask(services, "GET", site)
    assert page.status == 200
    assert "edition one" in page.text and "old bytes" in page.text
    module = ask(services, "GET", f"{origin}/base/mod.ts", accept="text/javascript")
    assert module.status == 200
    assert [path.name for path in place.iterdir()] == [".data"]


def ended(running: Sequence["subprocess.Popen[bytes]"]) -> bool:
    return any(each.poll() is not None for each in running)


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", f"http://localhost:{port}/base/mod.ts").status == 200
    except OSError:
        return False


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def run(
    bin_folder: Path, place: Path, environment: Mapping[str, str], name: str, *arguments: str
) -> str:
    command = [str(bin_folder / name), *arguments]
    done = subprocess.run(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr
