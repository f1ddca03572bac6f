"""The management commands: what they say, what they change, and when they ask."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, load_command_class
from django.utils import timezone

from notifications.models import Replica, ReplicaGeneration
from realms.errors import Conflict
from realms.models import FileVersion, Realm, RealmPermission
from realms.publishing.importing import Folder, files_in, import_files
from reindex.models import IndexHead, ReindexJob
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.cluster import Cluster
from tests.support.web import ORIGIN, everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "base")]

PAGE = "http://ada.localhost:4201/"
SITE = f"{ORIGIN}/ada/site/"
COMMANDS = (
    "realms", "import_realm", "publish_realm", "unpublish_realm", "rollback_realm", "delete_realm",
    "verify_coherence",
)  # fmt: skip


def run(command: str, *arguments: object, **options: Any) -> str:
    """What a command writes to its standard output."""
    out = StringIO()
    call_command(command, *map(str, arguments), stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files that are a realm's, and others that are not."""
    for path, data in {
        "index.json": b"{}",
        "deep/er/ä ö.md": b"text",
        "empty.txt": b"",
        "_private.md": b"x",
        ".hidden": b"x",
        ".git/config": b"x",
        "node_modules/a/b.js": b"x",
        "deep/node_modules/b.js": b"x",
        "__pycache__/a.pyc": b"x",
        ".well-known/security.txt": b"x",
        "deep/.well-known/no.txt": b"x",
    }.items():
        file = tmp_path / "site" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (tmp_path / "site" / "link.md").symlink_to(tmp_path / "site" / "index.json")
    (tmp_path / "site" / "linked").symlink_to(tmp_path / "site" / "deep")
    return tmp_path / "site"


TAKEN = [".well-known/security.txt", "_private.md", "deep/er/ä ö.md", "empty.txt", "index.json"]


def paths(realm_url: str) -> list[str]:
    versions = FileVersion.objects.filter(realm__url=realm_url, until_generation=None)
    return sorted(versions.values_list("path", flat=True))


# --- import_realm ------------------------------------------------------------------------------


def test_an_import_makes_the_realm_and_takes_what_is_not_hidden(owner: Any, folder: Path) -> None:
    said = run("import_realm", folder, SITE, public=True)
    assert paths(SITE) == TAKEN
    realm = Realm.objects.get(url=SITE)
    assert (realm.owner, realm.kind, realm.generation) == (owner, "source", 2)
    rows = RealmPermission.objects.filter(realm=realm).order_by("audience")
    assert [(row.whom, row.realm_owner) for row in rows] == [("everyone", False), ("ada", True)]
    assert f"{SITE} created: 5 written, 0 deleted, 0 unchanged, generation 2" in said


def test_an_import_writes_what_differs_in_one_generation(owner: Any, folder: Path) -> None:
    run("import_realm", folder, SITE)
    before = everything()
    assert "0 written, 0 deleted, 5 unchanged, generation 2" in run("import_realm", folder, SITE)
    assert everything() == before
    (folder / "index.json").write_text('{"new": 1}')
    (folder / "new.md").write_text("new")
    (folder / "empty.txt").unlink()
    said = run("import_realm", folder, SITE)
    assert "updated: 2 written, 0 deleted, 3 unchanged, generation 3" in said
    assert "empty.txt" in paths(SITE)
    assert "0 written, 1 deleted" in run("import_realm", folder, SITE, delete=True)
    assert "empty.txt" not in paths(SITE)


@pytest.mark.parametrize("standing", [False, True])
def test_a_dry_run_says_what_would_change_and_changes_nothing(
    owner: Any, folder: Path, standing: bool
) -> None:
    if standing:
        run("import_realm", folder, SITE)
        (folder / "index.json").write_text("[]")
        (folder / "empty.txt").unlink()
    before = everything()
    said = run("import_realm", folder, SITE, dry_run=True, delete=True)
    assert everything() == before
    if standing:
        assert "would be written  index.json" in said
        assert "would be deleted  empty.txt" in said
        assert "would be updated: 1 written, 1 deleted, 3 unchanged, generation 2" in said
    else:
        assert all(f"would be written  {path}" in said for path in TAKEN)
        assert "would be created: 5 written" in said


def test_an_import_tells_of_each_file_as_it_goes(owner: Any, folder: Path) -> None:
    seen: list[str] = []
    import_files(files_in(folder, SITE), SITE, owner=owner, progress=seen.append)
    assert seen == TAKEN


def test_an_import_says_what_it_leaves_out_and_what_only_the_realm_has(
    owner: Any, folder: Path
) -> None:
    run("import_realm", folder, SITE)
    make.write_paths(
        Realm.objects.get(url=SITE),
        dict.fromkeys(("more.md", "link.md", "linked/a.md", ".hidden", "linkedin.md"), b"x"),
    )
    os.mkfifo(folder / "pipe")
    for options in ({}, {"dry_run": True}):
        said = run("import_realm", folder, SITE, **options)
        for line in (
            ".git (hidden)", ".hidden (hidden)", "__pycache__ (made by tools)",
            "deep/.well-known (hidden)", "deep/node_modules (made by tools)",
            "link.md (a symbolic link)", "linked (a symbolic link)", "pipe (not a file)",
        ):  # fmt: skip
            assert f"  left out  {line}\n" in said
        for path in (".hidden", "link.md", "linked/a.md", "linkedin.md", "more.md"):
            assert f"  in the realm and not in the folder  {path}\n" in said
    said = run("import_realm", folder, SITE, delete=True)
    assert "0 written, 2 deleted, 5 unchanged" in said
    assert paths(SITE) == sorted([*TAKEN, ".hidden", "link.md", "linked/a.md"])


def test_an_import_names_a_few_of_many_left_out(owner: Any, folder: Path) -> None:
    for number in range(30):
        (folder / f".dot{number}").touch()
    assert "  left out  and 18 more; -v 2 names all\n" in run("import_realm", folder, SITE)
    assert "  left out  .dot29 (hidden)\n" in run("import_realm", folder, SITE, verbosity=2)


def test_a_file_that_goes_away_meanwhile_is_named(owner: Any, folder: Path) -> None:
    listed = files_in(folder, SITE)
    (folder / "empty.txt").unlink()
    with pytest.raises(FileNotFoundError, match="empty"):
        import_files(listed, SITE, owner=owner)
    assert not Realm.objects.filter(url=SITE).exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"a*b.md", r"has a \*"),
        (b":a.md", "starts with :"),
        (b"a\nb.md", "control character"),
        (b"a\xff.md", "not valid UTF-8"),
    ],
)
def test_an_impossible_file_name_is_named_and_nothing_is_imported(
    owner: Any, folder: Path, name: bytes, why: str
) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
    before = everything()
    with pytest.raises(CommandError, match=f"Invalid path .*{why}") as raised:
        run("import_realm", folder, SITE)
    str(raised.value).encode()
    assert everything() == before


def test_names_that_differ_in_composition_only_are_named_and_not_imported(
    owner: Any, folder: Path
) -> None:
    (folder / "cafe\u0301.md").write_text("1")
    run("import_realm", folder, SITE)
    assert "caf\u00e9.md" in paths(SITE)
    assert "0 written, 0 deleted, 6 unchanged" in run("import_realm", folder, SITE, delete=True)
    (folder / "caf\u00e9.md").write_text("2")
    before = everything()
    with pytest.raises(CommandError, match=r"'cafe\\u0301\.md'.*'caf\\xe9\.md'"):
        run("import_realm", folder, SITE)
    assert everything() == before


def test_a_file_that_is_too_large_is_named_and_nothing_is_imported(
    owner: Any, folder: Path, settings: Any
) -> None:
    settings.FILE_SIZE_LIMIT_BYTES = 3
    before = everything()["Realm"]
    with pytest.raises(CommandError, match=r"deep/er/ä ö\.md has 4 bytes and exceeds"):
        run("import_realm", folder, SITE)
    assert everything()["Realm"] == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/nowhere/at/all", SITE), "/nowhere/at/all is not a folder"),
        ((".", "nonsense"), "Invalid realm URL supplied"),
        ((".", f"{ORIGIN}/eve/site/"), "there is no user 'eve'"),
        ((".", "http://eve.localhost:4201/"), f"is not at this server's origin, {ORIGIN};"),
        (
            (".", "http://localhost:4202/ada/other/", "--owner", "ada"),
            "not at this server's origin",
        ),
        ((".", "https://localhost/ada/other/", "--owner", "ada"), "not at this server's origin"),
        ((".", PAGE), "is a published realm"),
        ((".", f"{ORIGIN}/base/"), "is a bootstrap realm"),
    ],
)
def test_an_import_into_the_wrong_place_is_refused(
    source: Realm, arguments: tuple[str, ...], says: str, folder: Path, monkeypatch: Any
) -> None:
    make.publish(source, PAGE)
    monkeypatch.chdir(folder)
    before = everything()
    with pytest.raises(CommandError, match=says):
        run("import_realm", *arguments)
    assert everything() == before


def test_files_never_get_into_a_realm_that_has_none_of_its_own(source: Realm, owner: Any) -> None:
    make.publish(source, PAGE)
    with pytest.raises(Conflict, match="only source realms have files"):
        import_files(Folder({}, {}), PAGE, owner=owner)


# --- publish_realm, unpublish_realm ------------------------------------------------------------


def test_a_publish_by_command_is_a_publish(source: Realm) -> None:
    said = run("publish_realm", source.url, PAGE, "--no-wait")
    assert said == f"{PAGE} generation 1 shows {source.url} generation 2\n"
    assert ReindexJob.objects.get(realm_url=PAGE).status == "queued"
    assert Realm.objects.get(url=PAGE).owner == source.owner


def test_a_publish_follows_its_pages_to_the_end(source: Realm, monkeypatch: Any) -> None:
    from realms.management.commands import publish_realm as command

    def finish(realm_url: str, generation: int, out: Any, *, allow_errors: bool) -> None:
        assert (realm_url, generation, allow_errors) == (PAGE, 1, False)
        out.write("followed")

    monkeypatch.setattr(command, "follow", finish)
    assert run("publish_realm", source.url, PAGE).endswith("followed\n")


def test_a_publish_that_fails_to_render_ends_in_an_error(source: Realm) -> None:
    from realms.management.progress import follow

    make.publish(source, PAGE)
    ReindexJob.objects.filter(realm_url=PAGE).update(status="failed", error="no replica")
    with pytest.raises(CommandError, match="failed: no replica"):
        follow(PAGE, 1, StringIO())
    ReindexJob.objects.filter(realm_url=PAGE).update(status="superseded")
    with pytest.raises(CommandError, match="superseded"):
        follow(PAGE, 1, StringIO())


def land(realm_url: str, **figures: Any) -> ReindexJob:
    """Ends the newest job of a realm with these figures, as a worker would."""
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
def test_the_figures_are_those_of_the_job_whose_index_is_shown(
    source: Realm, overtaken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job may end between the reading of its row and the look at the index, and a newer one may
    take its place meanwhile."""
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
def test_a_command_whose_cards_have_errors_exits_1_and_names_file_and_line(
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


def test_who_stops_watching_a_rendering_is_told_that_it_goes_on(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realms.management import progress

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    make.publish(source, PAGE)
    monkeypatch.setattr("realms.management.progress.time.sleep", interrupt)
    with pytest.raises(CommandError, match=f"the rendering of {PAGE} goes on") as raised:
        progress.follow(PAGE, 1, StringIO())
    assert raised.value.returncode == 130
    assert ReindexJob.objects.get(realm_url=PAGE).status == "queued"


@pytest.mark.parametrize("theirs", [False, True])
def test_a_publish_over_another_site_says_so_and_is_confirmed(source: Realm, theirs: bool) -> None:
    """Also where the operator, who may do everything, takes another user's address."""
    owner = make.user("bob") if theirs else source.owner
    other = make.source(f"{ORIGIN}/{owner}/other/", owner, {"index.json": b"{}"})
    make.publish(source, PAGE)
    before = everything()
    command = ("publish_realm", other.url, PAGE, "--no-wait")
    out = StringIO()
    with pytest.raises(CommandError, match="Nobody is here to ask: say --yes"):
        call_command(*command, stdout=out)
    assert f"{PAGE} shows {source.url}, which is ada's, and not {other.url}" in out.getvalue()
    run(*command, "--dry-run")
    assert everything() == before
    run(*command, "--yes")
    assert Realm.objects.get(url=PAGE).source == other
    run(*command)


def test_a_publish_into_another_users_space_says_so_and_is_confirmed(source: Realm) -> None:
    bob = make.user("bob")
    make.publish(
        make.source(f"{ORIGIN}/bob/site/", bob, {"a.md": b""}), "http://bob.localhost:4201/"
    )
    for url in ("http://bob.localhost:4201/under/", f"{ORIGIN}/bob/new/", f"{ORIGIN}/eve/new/"):
        before = everything()
        with pytest.raises(CommandError, match="Nobody is here to ask"):
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


def test_a_command_acts_with_the_rights_of_the_user_who_is_named(source: Realm) -> None:
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


def test_an_unpublish_by_command_is_an_unpublish(source: Realm) -> None:
    make.publish(source, PAGE)
    before = everything()
    assert f"{PAGE} shows {source.url}" in run("unpublish_realm", PAGE, "--dry-run")
    assert everything() == before
    assert "no longer published" in run("unpublish_realm", PAGE, "--yes")
    assert not Realm.objects.filter(url=PAGE).exists()
    with pytest.raises(CommandError, match="not found"):
        run("unpublish_realm", PAGE, "--yes")


# --- rollback_realm ----------------------------------------------------------------------------


@pytest.fixture
def republished(source: Realm) -> Realm:
    """A source that was published, changed in two files, and published again."""
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}", new__md=b"new")
    make.publish(source, PAGE)
    return source


def test_a_dry_run_of_a_rollback_lists_differences_and_changes_nothing(
    republished: Realm,
) -> None:
    before = everything()
    said = run("rollback_realm", PAGE, "--dry-run")
    assert everything() == before
    assert f"{PAGE} goes from generation 2 back to what it showed at 1" in said
    assert "by ada" in said
    assert "2 files differ" in said
    assert "index.json" in said
    assert "new.md" in said


def test_a_rollback_by_command_is_a_rollback(republished: Realm) -> None:
    assert "generation 3 shows it again" in run("rollback_realm", PAGE, "--yes", "--no-wait")
    said = run("rollback_realm", PAGE, "--yes", "--no-wait", "--to", "2")
    assert "generation 4 shows it again" in said
    with pytest.raises(CommandError, match="no publication of generation 99"):
        run("rollback_realm", PAGE, "--yes", "--to", "99")
    with pytest.raises(CommandError, match="not found"):
        run("rollback_realm", republished.url, "--yes")


# --- delete_realm ------------------------------------------------------------------------------


def test_a_delete_lists_what_goes_and_a_dry_run_leaves_it(source: Realm) -> None:
    make.publish(source, PAGE)
    before = everything()
    said = run("delete_realm", source.url, "--dry-run")
    assert everything() == before
    assert f"{source.url}: 5 files, generation 2" in said
    assert f"published at {PAGE}" in said
    said = run("delete_realm", source.url, "--yes")
    assert f"deleted {source.url}\ndeleted {PAGE}\n" in said
    assert not Realm.objects.filter(owner=source.owner).exists()
    with pytest.raises(CommandError, match="not found"):
        run("delete_realm", source.url, "--yes")


# --- As processes ------------------------------------------------------------------------------


@pytest.fixture
def manage(tmp_path: Path) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Starts `manage.py` on the test's database."""
    (tmp_path / "data").mkdir()
    environment = Cluster(tmp_path / "data", 0, {}).environment

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        command = (sys.executable, str(BASE_DIR / "manage.py"), *arguments)
        return subprocess.Popen(command, cwd=BASE_DIR, env=environment, **options)

    return start


def test_nothing_is_deleted_where_nobody_is_there_to_be_asked(
    source: Realm, manage: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    before = everything()
    process = manage(
        "delete_realm", source.url, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"5 files" in out
    assert b"Nobody is here to ask: say --yes" in err
    assert b"Traceback" not in err
    assert len(err.splitlines()) == 1
    assert everything() == before


@pytest.mark.parametrize(("reply", "happens"), [(b"y\n", True), (b"\n", False), (b"n\n", False)])
def test_a_person_at_a_terminal_is_asked(
    republished: Realm,
    manage: Callable[..., "subprocess.Popen[bytes]"],
    reply: bytes,
    happens: bool,
) -> None:
    ours, theirs = pty.openpty()
    try:
        process = manage("rollback_realm", PAGE, "--no-wait", stdin=theirs, stdout=theirs,
                         stderr=theirs)  # fmt: skip
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 1000)
        assert Realm.objects.get(url=PAGE).generation == 2, "nothing happens before the answer"
        os.write(ours, reply)
        assert process.wait(timeout=60) == 0
    finally:
        os.close(theirs)
        os.close(ours)
    assert b"Roll back? [y/N]" in said
    assert b"2 files differ" in said
    assert Realm.objects.get(url=PAGE).generation == (3 if happens else 2)


# --- realms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["20", "80", "140"])
def test_the_listing_has_published_realms_below_their_sources(
    source: Realm, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    bob = make.user("bob")
    long = f"{ORIGIN}/bob/{'a-very-long-name-' * 5}/"
    lights = make.source(long, bob, {"a.md": b""})
    make.publish(lights, "http://lights.localhost:4201/")
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}")
    make.publish(source, PAGE)
    make.publish(source, f"{PAGE}two/")
    now = timezone.now()
    for name, state, ago in (("a", "live", 0), ("b", "listening", 0), ("c", "live", 90)):
        replica = Replica.objects.create(
            name=name, address="http://127.0.0.1", state=state, sidecar_pid=1,
            reported_at=now - timedelta(seconds=ago),
        )  # fmt: skip
        ReplicaGeneration.objects.create(
            replica=replica, realm_url=PAGE, generation=3, applied_at=now
        )

    lines = [line.split() for line in run("realms").splitlines()]
    assert lines[0] == ["realm", "owner", "files", "gen", "pages", "a", "b", "c"]
    assert lines[1] == ["localhost:4201/ada/site/", "ada", "5", "3", "-", "-", "-", "-"]
    # A realm within it has come since it was published.
    assert lines[2] == ["ada.localhost:4201/", "ada", "as", "of", "3", "3", "-", "3", "3", "3"]
    assert lines[3][:5] == ["ada.localhost:4201/two/", "ada", "as", "of", "3"]
    assert lines[4][:4] == ["localhost:4201/base/", "-", lines[4][2], "2"]
    assert lines[5][0] == long.removeprefix("http://")
    assert lines[6][:5] == ["lights.localhost:4201/", "bob", "as", "of", "2"]
    assert [" ".join(line) for line in lines[7:]] == [
        "replica b is listening",
        "replica c has not reported for a while",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(command: str) -> None:
    parser = load_command_class("realms", command).create_parser("manage.py", command)
    assert len(parser.description or "") > 20
    own = [a for a in parser._actions if a.option_strings and not a.help]
    assert own == []
    assert command in parser.format_help()


def test_a_database_that_is_away_is_told_in_one_line(
    manage: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    elsewhere = {"DATABASE_URL": f"postgresql://nobody@/nothing?host={tmp_path}"}
    command = (sys.executable, str(BASE_DIR / "manage.py"), "realms")
    done = subprocess.run(
        command, cwd=BASE_DIR, env={**Cluster(tmp_path / "data", 0, {}).environment, **elsewhere},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(b"CommandError: the database: ")
    assert b"Traceback" not in done.stderr
