"""Tests that the files in deploy/ and the runbooks refer only to things that exist, and agree with
the settings."""

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from django.core.management import get_commands

from settings.environment import BASE_DIR, Environment
from settings.processes import celery_worker, replica
from tests.support.runbooks.fleet_of_hosts import Fleet, instead
from tests.support.runbooks.runbook import Block, blocks
from tests.support.runbooks.units import settings_of

DEPLOY = BASE_DIR / "deploy"
OPERATIONS = BASE_DIR / "docs" / "operations"
PAGES = ("three-hosts.md", "upgrade.md", "backup.md")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def all_blocks() -> list[tuple[str, Block]]:
    return [(page, block) for page in PAGES for block in blocks(OPERATIONS / page)]


def test_every_block_of_a_runbook_says_where_it_runs() -> None:
    assert [
        (page, block.text) for page, block in all_blocks() if not block.hosts or block.language
        not in ("sh", "ini")
    ] == []  # fmt: skip


def test_every_code_fence_of_a_runbook_is_closed() -> None:
    for page in PAGES:
        fences = (OPERATIONS / page).read_text().count("```")
        assert fences == 2 * len(blocks(OPERATIONS / page)), page


def test_every_replacement_in_the_tests_matches_a_line_of_a_runbook() -> None:
    lines = [line for _, block in all_blocks() for line in block.text.splitlines()]
    patterns = instead(cast(Fleet, None))
    assert [each for each in patterns if not any(re.search(each, line) for line in lines)] == []


def test_every_variable_of_the_pages_is_a_setting_or_used_by_a_unit() -> None:
    known = set(Environment.model_fields)
    used = set(re.findall(r"\$\{(\w+)\}", "".join(unit.read_text() for unit in UNITS)))
    lines = [
        line
        for _, block in all_blocks()
        if block.path.endswith(".env")
        for line in block.text.splitlines()
    ]
    named = {line.partition("=")[0] for line in lines}
    assert named <= known | used
    assert used <= named


def test_the_worker_unit_has_the_options_of_the_reference_command() -> None:
    (command,) = settings_of((DEPLOY / "systemd/realms-worker.service").read_text())["ExecStart"]
    reference = celery_worker("NAME").command[1:]
    words = command.split()[1:]
    free = {"NAME@%h": "${REALM_REPLICA}@%%h", "2": "${WORKER_PROCESSES}"}
    assert words == [free.get(word, word) for word in reference]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no `systemd-analyze` here")
    # Replace the path of the checkout on a host, because the path needn't exist on this machine.
    here = unit.read_text().replace("/srv/realms/server", str(BASE_DIR))
    copy = tmp_path / unit.name
    copy.write_text(here)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert said == []


def test_the_balancer_takes_bodies_as_large_as_the_replicas_do() -> None:
    sizes = re.findall(r"client_max_body_size (\d+)m;", (DEPLOY / "nginx.conf").read_text())
    fields = Environment.model_fields
    limits = [fields[f"{name}_SIZE_LIMIT_BYTES"].default for name in ("FILE", "ATOMIC")]
    assert [int(size) * 1024 * 1024 for size in sizes] == limits


# --- Containers --------------------------------------------------------------------------------


@pytest.fixture
def services() -> dict[str, Any]:
    """Returns the services of deploy/compose.yaml."""
    yaml: Any = importlib.import_module("yaml")
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def test_containers_run_the_reference_commands(services: dict[str, Any]) -> None:
    _, sidecar = replica("web", 8000, Path("/run"))
    for number in (1, 2):
        assert services[f"sidecar-{number}"]["command"][1:] == ["manage.py", *sidecar.command[2:]]
        assert services[f"web-{number}"]["command"][0] == "script/web"
    assert services["worker"]["command"][1:] == list(celery_worker("worker").command[1:])


def test_compose_names_only_known_settings_and_existing_files(
    services: dict[str, Any],
) -> None:
    assert set(services["web-1"]["environment"]) <= set(Environment.model_fields)
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    told = re.findall(r"^(\w+)=", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE)
    assert asked == set(told)
    for volume in services["nginx"]["volumes"]:
        if volume.startswith("./"):
            assert (DEPLOY / volume.split(":")[0]).is_file()
    assert (DEPLOY / "Containerfile").is_file()


def test_nginx_is_told_the_addresses_that_the_replicas_have(services: dict[str, Any]) -> None:
    """nginx looks up a host name only when nginx starts, and a restarted container may get another
    address. So the configuration must have fixed addresses."""
    told = re.findall(r"^server (\S+):8000 ", (DEPLOY / "compose.replicas.conf").read_text(), re.M)
    webs = [each for name, each in services.items() if name.startswith("web-")]
    assert told == [each["networks"]["inside"]["ipv4_address"] for each in webs]
    at = services["nginx"]["networks"]["inside"]["ipv4_address"]
    assert {each["environment"]["REALM_TRUSTED_PROXIES"] for each in webs} == {at}


def test_no_image_holds_the_secrets_of_who_built_it() -> None:
    assert "deploy/compose.env" in (BASE_DIR / ".dockerignore").read_text().splitlines()


# --- Pages for operators -------------------------------------------------------------------------


def test_pages_for_operators_name_only_existing_commands() -> None:
    for page in OPERATIONS.glob("*.md"):
        named = re.findall(r"(?:deploy/manage|manage\.py) ([a-z_]+)", page.read_text())
        assert {*named} <= {*get_commands()}, page.name


def test_pages_for_operators_link_only_to_existing_headings() -> None:
    for page in OPERATIONS.glob("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                assert anchor in slugs, f"{page.name}: {target}"
