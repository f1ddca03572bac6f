"""Runs the units of deploy/systemd under a real systemd, and every documented systemctl and
journalctl command.

The tests boot a new Debian (`tests/support/runbooks/machine.py`) and follow
docs/operations/three-hosts.md on it. `tests/support/runbooks/one_machine.py` replaces the commands
of the page that can't run there. The tests also follow docs/operations/upgrade.md, and run the
systemctl and journalctl commands of docs/operations/troubleshooting.md. Together the tests take
three minutes on two quiet cores. Installing Debian's packages takes half of this time. The tests
need root, the network and 4 GiB of memory. Without `mmdebstrap` the tests are skipped.
"""

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.cluster import wait_until
from tests.support.minutes import takes_minutes
from tests.support.runbooks.fleet_of_hosts import OPERATIONS, PAGE, REPLICAS, SITE, SOURCE
from tests.support.runbooks.one_machine import OneMachine, one_machine

pytestmark = [
    pytest.mark.cluster, pytest.mark.services, pytest.mark.timeout(1200), takes_minutes
]  # fmt: skip

REPLICA = ("realms-web", "realms-sidecar", "realms-worker")
UNITS = (*REPLICA, "realms-balance")
READY = "curl --silent --fail http://10.0.0.12:8000/_readiness"
#: The documented commands that show a state or a log. Each value is a text that the command's
#: output contains when nothing is wrong.
SHOWS = {
    "systemctl status realms-web": "Active: active (running)",
    "systemctl status realms-worker": "Active: active (running)",
    "systemctl status postgresql@15-main": "Active: active (running)",
    "systemctl show realms-web realms-sidecar --property EnvironmentFiles": (
        "EnvironmentFiles=/etc/realms/host.env"
    ),
    "journalctl -u realms-web": "Started realms-web.service",
    "journalctl -u realms-web -n 50": "Started realms-web.service",
    "journalctl -u realms-sidecar -n 50": '"message": "listener of web-2 is live"',
    "journalctl -u realms-worker -n 50": "amqp://realms:**@10.0.0.11:5672/realms",
    "journalctl -u realms-balance": "server 10.0.0.13:8000 down;",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneMachine]:
    """Yields a machine on which the commands of three-hosts.md for host 1 and host 2 have been
    run."""
    with one_machine(tmp_path_factory.mktemp("machine")) as made:
        assert "Nothing is wrong." in made.follow(PAGE)
        yield made


@pytest.fixture(autouse=True)
def all_works(machine: OneMachine) -> None:
    """Waits before each test until all services work, because the previous test may have restarted
    some of the services."""
    works(machine)


def works(machine: OneMachine) -> None:
    """Waits until all services run, the replica is ready and its sidecar is live. A live sidecar
    receives all notifications of changes."""

    def settled() -> bool:
        states = {machine.show(unit, "ActiveState") for unit in UNITS}
        return states == {"active"} and '"ready": true' in machine.run(READY, check=False)

    wait_until(settled, "all services run and the replica is ready", 60)
    wait_until(lambda: live(machine), "the sidecar is live", 60)


def live(machine: OneMachine) -> bool:
    said = machine.run("deploy/manage listen_file_changes --check", check=False)
    return '"live": true' in said


def rendered(machine: OneMachine, word: str) -> None:
    """Publishes a changed page, and a file that is too large for a database row. Asserts that
    visitors get the page and the file."""
    said = machine.run(
        "rm -rf /var/lib/realms/changed; cp -r examples/tools /var/lib/realms/changed\n"
        f"sed -i 's/Cutler Street/{word}/' $(grep -rl 'Cutler Street' /var/lib/realms/changed)\n"
        "head -c 200000 /dev/urandom > /var/lib/realms/changed/large.bin\n"
        f"deploy/manage import_realm /var/lib/realms/changed {SOURCE}\n"
        f"deploy/manage publish_realm {SOURCE} {SITE}"
    )
    assert "0 with errors" in said
    assert word in machine.fleet.get(SITE, accept="text/html").text
    assert len(machine.fleet.get(f"{SITE}large.bin").body) == 200_000


@pytest.mark.parametrize("command", SHOWS)
def test_a_command_of_the_pages_shows_what_they_say(machine: OneMachine, command: str) -> None:
    assert SHOWS[command] in machine.run(command)


def test_the_walls_of_the_units_stop_nothing_of_a_publish(machine: OneMachine) -> None:
    rendered(machine, "Walled Street")
    said = "".join(machine.run(f"journalctl -u {unit} --output cat") for unit in UNITS)
    assert not re.findall(r".*(?:denied|Read-only|not permitted|Traceback).*", said)


@pytest.mark.parametrize("unit", REPLICA)
def test_the_walls_of_a_unit_stand_around_its_process(machine: OneMachine, unit: str) -> None:
    pid = machine.show(unit, "MainPID")
    status = machine.run(f"cat /proc/{pid}/status")
    assert re.search(r"^Uid:\s+850\s", status, re.MULTILINE)
    for line in ("CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    # `touch` runs as root, so file permissions can't refuse its writes. Only the unit's mounts can
    # refuse them.
    within = f"nsenter --target {pid} --mount touch"
    for path in ("/srv/realms/blobs/.x", "/var/lib/realms/.x", "/run/realms/.x"):
        machine.run(f"{within} {path} && rm {path}")
    for path in ("/srv/realms/server/.x", "/etc/realms/.x", "/usr/.x", "/root/.x"):
        assert "Read-only" in machine.run(f"{within} {path}", check=False)
    assert machine.run(f"nsenter --target {pid} --mount ls -A /root") == ""


def test_the_services_write_a_line_of_json_for_each_message(machine: OneMachine) -> None:
    lines = machine.run(
        "journalctl -u realms-sidecar --output cat _SYSTEMD_UNIT=realms-sidecar.service"
    ).splitlines()
    own = [line for line in lines if not line.endswith("Realm server: sidecar.")
           and not line.startswith(("Start", "Stop", "realms-sidecar.service: "))]  # fmt: skip
    assert len(own) >= 2
    assert {json.loads(line)["replica"] for line in own} == {"web-2"}


@pytest.mark.parametrize("unit", UNITS)
def test_a_service_that_is_killed_is_started_again(machine: OneMachine, unit: str) -> None:
    killed, restarts = machine.show(unit, "MainPID"), int(machine.show(unit, "NRestarts"))
    machine.run(f"kill -9 {killed}")
    wait_until(lambda: int(machine.show(unit, "NRestarts")) > restarts, f"{unit} restarts", 30)
    works(machine)
    assert machine.show(unit, "MainPID") not in ("0", killed)


def test_a_sidecar_that_is_restarted_by_hand_is_live_again(machine: OneMachine) -> None:
    before = machine.show("realms-sidecar", "MainPID")
    machine.run("systemctl restart realms-sidecar")
    wait_until(lambda: live(machine), "the new sidecar is live", 30)
    said = json.loads(machine.run("deploy/manage listen_file_changes --check"))
    assert str(said["sidecar_pid"]) == machine.show("realms-sidecar", "MainPID") != before


@pytest.mark.parametrize("unit", UNITS)
def test_a_service_ends_by_itself_within_its_time(machine: OneMachine, unit: str) -> None:
    allowed = float(machine.run(
        f"sed -n 's/^TimeoutStopSec=//p' /etc/systemd/system/{unit}.service"
    ))  # fmt: skip
    began = time.monotonic()
    machine.run(f"systemctl stop {unit}")
    took = time.monotonic() - began
    state, result = machine.show(unit, "ActiveState"), machine.show(unit, "Result")
    machine.run(f"systemctl start {unit}")
    # The property `Result` is "timeout" if systemd had to kill the service.
    assert (state, result) == ("inactive", "success")
    assert took < allowed


def test_a_wrong_variable_is_named_in_the_log_of_the_service(machine: OneMachine) -> None:
    variables = machine.hosts["host2"].read("/etc/realms/host.env")
    machine.hosts["host2"].write("/etc/realms/host.env", f"{variables}REALM_THREADS=many\n")
    try:
        machine.run("systemctl restart realms-web")
        wait_until(
            lambda: "REALM_THREADS is 'many'" in machine.run("journalctl -u realms-web -n 50"),
            "the log names the variable", 30,
        )  # fmt: skip
        wait_until(lambda: int(machine.show("realms-web", "NRestarts")) >= 2, "systemd retries", 30)
    finally:
        machine.hosts["host2"].write("/etc/realms/host.env", variables)
    # systemd keeps restarting the service. So the service works again without another command.
    works(machine)


def test_a_database_that_is_stopped_is_shown_as_such(machine: OneMachine) -> None:
    machine.run("systemctl stop postgresql@15-main")
    try:
        shown = machine.run("systemctl status postgresql@15-main", check=False)
        assert "Active: inactive (dead)" in shown
        missing = machine.run("curl --silent http://10.0.0.12:8000/_readiness")
        assert "the database can't be reached" in missing
    finally:
        machine.run("systemctl restart postgresql")
    works(machine)
    assert "Active: active (running)" in machine.run("systemctl status postgresql@15-main")


def test_an_upgrade_leaves_all_services_at_the_next_release(machine: OneMachine) -> None:
    before = {unit: machine.show(unit, "MainPID") for unit in REPLICA}
    # systemd reads the changed unit only at a `daemon-reload`, so upgrade.md must contain one.
    machine.run("echo '# of the old release' >> /etc/systemd/system/realms-web.service")
    for heading in ("## Host 2", "## Host 1"):
        machine.follow(OPERATIONS / "upgrade.md", heading)
    machine.run("nginx -t")
    machine.run("systemctl reload nginx")
    machine.run("systemctl restart realms-balance")
    works(machine)
    assert "# next" in machine.run("tail -n 1 CHANGELOG.md")
    for unit in REPLICA:
        assert machine.show(unit, "MainPID") not in ("0", before[unit])
        assert machine.show(unit, "NeedDaemonReload") == "no"
    wait_until(
        lambda: machine.fleet.listed()[REPLICAS["host2"]], "the balancer lists the replica", 30
    )
    assert "Walled Street" in machine.fleet.get(SITE, accept="text/html").text


def test_the_services_go_over_to_redis_as_the_page_has_it(machine: OneMachine) -> None:
    machine.fleet.runner.broker = "redis"
    machine.follow(PAGE, "### Or Redis")
    machine.follow(PAGE, "## 4. Hosts 2 and 3: the variables")
    machine.run("systemctl disable --now rabbitmq-server")
    machine.run(f"systemctl restart {' '.join(REPLICA)}")
    works(machine)
    rendered(machine, "Redis Street")
    assert "redis://:**@10.0.0.11:6379/0" in machine.run("journalctl -u realms-worker -n 50")


def test_all_services_are_back_when_the_host_is_booted(machine: OneMachine) -> None:
    began = machine.run("date +%s").strip()
    machine.reboot()
    works(machine)
    said = machine.run(f"journalctl --since @{began} --output cat")
    for unit in UNITS:
        assert f"Stopped {unit}.service" in said
        assert f"{unit}.service: State 'stop-sigterm' timed out" not in said
    assert "Nothing is wrong." in machine.run("deploy/manage doctor")
    rendered(machine, "Booted Street")
