"""Builds and starts deploy/compose.yaml with the commands of docs/operations/three-hosts.md.

The tests start a Docker engine from Debian's package. The engine downloads no images. So the tests
build the images of Python, Postgres, RabbitMQ and nginx from Debian 12's packages. These images
have the names of the official images, but some have other versions (for example Python 3.11). On
top of these images, the tests build the image of deploy/Containerfile and start the services of
deploy/compose.yaml, as an operator does. The tests need root and the package indexes, and take
five minutes.
"""

import shlex
from collections.abc import Iterator

import pytest

from tests.support.cluster import wait_until
from tests.support.minutes import takes_minutes
from tests.support.runbooks.containers import SERVICES, Containers, containers
from tests.support.runbooks.documented import commands
from tests.support.runbooks.fleet_of_hosts import PAGE, SITE, SOURCE, WORDS

COPY = "cp deploy/compose.env.example deploy/compose.env"
UP = "docker compose --env-file deploy/compose.env --file deploy/compose.yaml up --build"
MANAGE = (
    "docker compose --env-file deploy/compose.env --file deploy/compose.yaml"
    " exec web-1 .venv/bin/python manage.py COMMAND"
)
BOTH = {"web-1", "web-2"}
REALMS = ("web-1", "sidecar-1", "web-2", "sidecar-2", "worker")

pytestmark = [pytest.mark.cluster, pytest.mark.services, pytest.mark.timeout(1800), takes_minutes]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Yields a fleet that was started by the page's commands and has one published realm."""
    with containers(tmp_path_factory.mktemp("containers")) as made:
        made.run(COPY)
        made.fill_in()
        made.start(UP)
        user = f"User.objects.create_user('ada', password='{WORDS['AUTHOR_PASSWORD']}')"
        code = f"from django.contrib.auth.models import User; {user}"
        manage(made, f"shell --command {shlex.quote(code)}")
        manage(made, f"import_realm examples/tools {SOURCE} --public")
        manage(made, f"publish_realm {SOURCE} {SITE}")
        yield made


def manage(fleet: Containers, command: str) -> str:
    """Runs a management command as the page describes. Returns the command's output."""
    return fleet.run(MANAGE.replace("COMMAND", command))


def change(fleet: Containers, word: str) -> None:
    """Uploads a changed file as an author, publishes the realm, and waits until its pages are
    rendered."""
    author = {"Content-Type": "text/css", **fleet.author()}
    body = f"/* {word} */".encode()
    accept = "application/vnd.card+source"
    assert fleet.post(f"{SOURCE}new.css", body, headers=author, accept=accept).status == 204
    assert "0 with errors" in manage(fleet, f"publish_realm {SOURCE} {SITE}")


def test_the_page_has_these_commands_in_this_order() -> None:
    told = [each.line for each in commands(PAGE)]
    assert [line for line in told if "compose" in line and " " in line] == [COPY, UP, MANAGE]


def test_a_publish_is_seen_from_both_replicas_through_the_balancer(fleet: Containers) -> None:
    with fleet.visitors(SITE, "text/html") as visits:
        wait_until(lambda: visits.replicas().keys() == BOTH, "answers of both replicas", 30)
    assert visits.failed() == []
    assert "Cutler Street" in fleet.get(SITE, accept="text/html").text
    for word in ("first", "second"):
        change(fleet, word)
        # A replica may serve old answers for two seconds after a publish (REALM_STALENESS_BOUND).
        # `publish_realm` waits for the rendering and ends later than that. So every answer must be
        # new.
        seen = [fleet.get(f"{SITE}new.css") for _ in range(20)]
        assert {answer.text for answer in seen} == {f"/* {word} */"}
        names = {answer.headers["x-realm-replica"].partition("/")[0] for answer in seen}
        assert names == BOTH


def test_the_checks_of_the_page_find_nothing_wrong(fleet: Containers) -> None:
    assert "Nothing is wrong." in manage(fleet, "doctor")
    assert "no issues" in manage(fleet, "check --deploy")
    assert '"live": true' in manage(fleet, "listen_file_changes --check")
    assert "web-2" in manage(fleet, "realms")
    manage(fleet, "verify_coherence --once")


def test_the_image_has_neither_secrets_nor_what_is_built_elsewhere(fleet: Containers) -> None:
    shown = fleet.hosts["host1"].run("docker run --rm realms ls -A . deploy").split()
    assert "manage.py" in shown and "nginx.conf" in shown
    assert {"compose.env", ".git", "tests"} & {*shown} == set()
    history = fleet.hosts["host1"].run("docker history --no-trunc realms")
    assert WORDS["SECRET_SEED"] not in history


@pytest.mark.parametrize("service", REALMS)
def test_a_service_has_no_rights_and_can_change_no_code(fleet: Containers, service: str) -> None:
    line = MANAGE.partition(" web-1 ")[0]
    said = fleet.run(
        f'{line} {service} sh -c \'id -u; grep -E "CapBnd|NoNewPrivs" /proc/self/status;'
        " for each in manage.py /etc/passwd .data/x; do touch $each || echo refused; done'"
    )
    words = said.split()
    assert words[0] == "850"
    assert words[1:5] == ["CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    assert words.count("refused") == 3, said


def test_a_killed_replica_comes_back_and_fails_no_visitor(fleet: Containers) -> None:
    with fleet.visitors(SITE, "text/html") as visits:
        visits.wait_more(40)
        fleet.wait_back(fleet.kill("web-2", "sidecar-2"))
        wait_until(
            lambda: visits.replicas(visits.wait_more(40)).keys() == BOTH,
            "both replicas answer again", 60,
        )  # fmt: skip
    assert visits.failed() == []


@pytest.mark.parametrize("balancer", ["killed", "running"])
def test_everything_killed_at_once_comes_back_by_itself(fleet: Containers, balancer: str) -> None:
    """Simulates a power failure of all services, or of all services except the balancer. After the
    restart, the engine gives the containers other IP addresses."""
    killed = [each for each in SERVICES if balancer == "killed" or each != "nginx"]
    fleet.wait_back(fleet.kill(*killed))
    wait_until(fleet.ready, "the balancer reaches a replica", 60)
    word = f"the balancer was {balancer}"
    change(fleet, word)
    with fleet.visitors(f"{SITE}new.css") as visits:
        wait_until(
            lambda: visits.replicas(visits.wait_more(40)).keys() == BOTH, "both replicas answer", 60
        )
    assert fleet.get(f"{SITE}new.css").text == f"/* {word} */"
    doctor = MANAGE.replace("COMMAND", "doctor")
    wait_until(
        lambda: "Nothing is wrong." in fleet.run(doctor, check=False), "nothing is wrong", 60
    )


def test_an_upgrade_keeps_what_was_published(fleet: Containers) -> None:
    """Ctrl-C ends the page's command and shuts every service down properly. Then the same command
    starts the new release."""
    change(fleet, "before the upgrade")
    before = {each: fleet.inspect(each, ".Image") for each in REALMS}
    fleet.interrupt()
    ended = {each: fleet.inspect(each, ".State.ExitCode") for each in REALMS}
    assert ended == dict.fromkeys(REALMS, "0")
    (fleet.server / "RELEASE").write_text("the next one\n")
    fleet.start(UP)
    after = {each: fleet.inspect(each, ".Image") for each in REALMS}
    assert len({*after.values()}) == 1 and after["worker"] not in before.values()
    assert fleet.get(f"{SITE}new.css").text == "/* before the upgrade */"
    assert "Cutler Street" in fleet.get(SITE, accept="text/html").text
    change(fleet, "after the upgrade")
    assert fleet.get(f"{SITE}new.css").text == "/* after the upgrade */"
