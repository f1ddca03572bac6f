"""Tests the questions, output and effects of the commands `publish_realm` and `unpublish_realm`."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from realms.models import Realm
from reindex.models import IndexHead, ReindexJob
from tests.support import make
from tests.support.commands import run
from tests.support.web import ORIGIN, everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "base")]

PAGE = "http://ada.localhost:4201/"


def test_publish_realm_publishes(source: Realm) -> None:
    said = run("publish_realm", source.url, PAGE, "--no-wait")
    assert said == f"{PAGE} generation 1 shows {source.url} generation 2\n"
    assert ReindexJob.objects.get(realm_url=PAGE).status == "queued"
    assert Realm.objects.get(url=PAGE).owner == source.owner


def test_publish_realm_waits_until_the_pages_are_rendered(source: Realm, monkeypatch: Any) -> None:
    from realms.management.commands import publish_realm as command

    def finish(realm_url: str, generation: int, out: Any, *, allow_errors: bool) -> None:
        assert (realm_url, generation, allow_errors) == (PAGE, 1, False)
        out.write("followed")

    monkeypatch.setattr(command, "follow", finish)
    assert run("publish_realm", source.url, PAGE).endswith("followed\n")


def test_publish_realm_fails_if_the_rendering_fails(source: Realm) -> None:
    from realms.management.progress import follow

    make.publish(source, PAGE)
    ReindexJob.objects.filter(realm_url=PAGE).update(status="failed", error="no replica")
    with pytest.raises(CommandError, match="failed: no replica"):
        follow(PAGE, 1, StringIO())
    ReindexJob.objects.filter(realm_url=PAGE).update(status="superseded")
    with pytest.raises(CommandError, match="superseded"):
        follow(PAGE, 1, StringIO())


def test_a_dry_run_is_refused_like_the_operation_itself(source: Realm) -> None:
    """A refused dry run changes nothing."""
    make.user("eve")
    nowhere = f"{ORIGIN}/ada/nothing/"
    before = everything()
    with pytest.raises(CommandError, match="nothing/ is not a realm on this server"):
        run("publish_realm", nowhere, PAGE, "--dry-run")
    with pytest.raises(CommandError, match="is not allowed to publish"):
        run("publish_realm", source.url, PAGE, "--dry-run", "--as", "eve")
    with pytest.raises(CommandError, match="is a source realm, which a publish can't replace"):
        run("publish_realm", source.url, source.url, "--dry-run")
    with pytest.raises(CommandError, match="reserved"):
        run("publish_realm", source.url, f"{ORIGIN}/base/x/", "--dry-run")
    assert everything() == before
    make.publish(source, PAGE)
    make.publish(source, PAGE)
    before = everything()
    for command in ("unpublish_realm", "rollback_realm"):
        with pytest.raises(CommandError, match="is not allowed to change"):
            run(command, PAGE, "--dry-run", "--as", "eve")
    assert everything() == before


def land(realm_url: str, **figures: Any) -> ReindexJob:
    """Marks the newest job of a realm as done, and makes its index, the rendered pages, the one
    that visitors see. A worker does the same at the end of a job."""
    job = ReindexJob.objects.filter(realm_url=realm_url).latest("pk")
    for name, value in {"status": "done", **figures}.items():
        setattr(job, name, value)
    job.save()
    IndexHead.objects.update_or_create(
        realm_url=realm_url,
        defaults={"job": job, "generation": job.generation, "swapped_at": timezone.now()},
    )
    return job


@pytest.mark.parametrize("overtaken", [False, True])
def test_the_printed_figures_are_those_of_the_job_whose_index_is_shown(
    source: Realm, overtaken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command first reads the row of its job, and then reads which index is shown. The job ends
    between these two reads. If `overtaken` is true, a newer job supersedes the command's job
    between the reads, and the newer job ends instead."""
    from realms.management import progress

    landed = progress._landed

    def end_before(*asked: Any) -> Any:
        if overtaken:
            make.publish(source, PAGE)
        land(PAGE, rendered=7)
        return landed(*asked)

    make.publish(source, PAGE)
    monkeypatch.setattr(progress, "_landed", end_before)
    out = StringIO()
    progress.follow(PAGE, 1, out)
    assert out.getvalue().startswith("7 cards rendered")


@pytest.mark.parametrize("command", ["publish_realm", "reindex_realm", "rollback_realm"])
def test_a_command_exits_1_and_names_the_lines_of_failed_cards(
    source: Realm, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realms.management import progress

    landed = progress._landed
    kind = {"status": 500, "title": "The isolated template failed", "module": f"{PAGE}post.tsx",
            "message": "x is null", "causes": ["x is null", f"see {PAGE}person.tsx"], "line": 12,
            "count": 7, "cards": ["index", "a", "b", "c", "d"]}  # fmt: skip
    told = {"message": "the link author leads to no card", "count": 1, "cards": ["ada"]}

    def end_before(*asked: Any) -> Any:
        land(PAGE, rendered=9, errors=7, summary={"errors": [kind], "warnings": [told]})
        return landed(*asked)

    make.publish(source, PAGE)
    if command == "rollback_realm":
        make.write(source, new__md=b"new")
        make.publish(source, PAGE)
    monkeypatch.setattr(progress, "_landed", end_before)
    arguments: tuple[object, ...] = (PAGE,)
    if command == "publish_realm":
        arguments = (source.url, PAGE)
    elif command == "rollback_realm":
        arguments = (PAGE, "--yes")
    out = StringIO()
    with pytest.raises(CommandError, match="7 cards have errors") as raised:
        call_command(command, *arguments, stdout=out)
    assert raised.value.returncode == 1
    assert (
        "  7 × The isolated template failed: x is null, because: see person.tsx "
        "(post.tsx, line 12): index.json, a.json, b.json, c.json, d.json, …\n"
        "  warning: the link author leads to no card: ada.json\n"
    ) in out.getvalue()
    if command == "reindex_realm":
        run(command, *arguments, "--allow-errors")


def test_an_interrupted_command_says_that_the_rendering_goes_on(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realms.management import progress

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    make.publish(source, PAGE)
    monkeypatch.setattr("realms.management.progress.time.sleep", interrupt)
    with pytest.raises(CommandError, match=f"{PAGE} is still being rendered") as raised:
        progress.follow(PAGE, 1, StringIO())
    assert raised.value.returncode == 130
    assert ReindexJob.objects.get(realm_url=PAGE).status == "queued"


@pytest.mark.parametrize("theirs", [False, True])
def test_a_publish_over_another_site_must_be_confirmed(source: Realm, theirs: bool) -> None:
    """The command asks for confirmation, although it acts for the operator, who may publish at any
    URL. If `theirs` is true, the new source realm belongs to another user than the old one."""
    owner = make.user("bob") if theirs else source.owner
    other = make.source(f"{ORIGIN}/{owner}/other/", owner, {"index.json": b"{}"})
    make.publish(source, PAGE)
    before = everything()
    command = ("publish_realm", other.url, PAGE, "--no-wait")
    out = StringIO()
    with pytest.raises(CommandError, match="stdin is not a terminal: pass --yes"):
        call_command(*command, stdout=out)
    assert f"{PAGE} now shows ada's realm {source.url}, not {other.url}" in out.getvalue()
    run(*command, "--dry-run")
    assert everything() == before
    run(*command, "--yes")
    assert Realm.objects.get(url=PAGE).source == other
    run(*command)


def test_a_publish_into_another_users_space_must_be_confirmed(source: Realm) -> None:
    bob = make.user("bob")
    make.publish(
        make.source(f"{ORIGIN}/bob/site/", bob, {"a.md": b""}), "http://bob.localhost:4201/"
    )
    for url in ("http://bob.localhost:4201/under/", f"{ORIGIN}/bob/new/", f"{ORIGIN}/eve/new/"):
        before = everything()
        with pytest.raises(CommandError, match="stdin is not a terminal"):
            run("publish_realm", source.url, url, "--no-wait")
        assert everything() == before
        run("publish_realm", source.url, url, "--no-wait", "--yes")
        assert Realm.objects.filter(url=url).exists()
        run("publish_realm", source.url, url, "--no-wait")


def test_a_dry_run_of_a_publish_says_what_would_be_shown(source: Realm) -> None:
    before = everything()
    said = run("publish_realm", source.url, PAGE, "--dry-run")
    assert said == f"{PAGE} would show {source.url} generation 2\n"
    assert everything() == before


def test_a_command_acts_with_the_rights_of_the_user_named_by_as(source: Realm) -> None:
    make.user("bob")
    before = everything()
    for command in (("publish_realm", source.url, PAGE, "--no-wait"),
                    ("delete_realm", source.url, "--yes")):  # fmt: skip
        with pytest.raises(CommandError, match="not allowed"):
            run(*command, "--as", "bob")
        with pytest.raises(CommandError, match="there is no user 'eve'"):
            run(*command, "--as", "eve")
    assert everything() == before
    run("publish_realm", source.url, PAGE, "--no-wait", "--as", "ada")
    with pytest.raises(CommandError, match="not allowed"):
        run("unpublish_realm", PAGE, "--yes", "--as", "bob")


def test_unpublish_realm_unpublishes(source: Realm) -> None:
    make.publish(source, PAGE)
    before = everything()
    assert f"{PAGE} shows {source.url}" in run("unpublish_realm", PAGE, "--dry-run")
    assert everything() == before
    assert "no longer published" in run("unpublish_realm", PAGE, "--yes")
    assert not Realm.objects.filter(url=PAGE).exists()
    with pytest.raises(CommandError, match="not found"):
        run("unpublish_realm", PAGE, "--yes")
