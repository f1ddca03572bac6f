"""Tests that `import_realm` writes a folder's files to a realm and prints the names of the files
that it skips."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from realms.errors import Conflict
from realms.models import FileVersion, Realm, RealmPermission
from realms.publishing.importing import Folder, files_in, import_files
from tests.support import make
from tests.support.commands import run
from tests.support.web import ORIGIN, everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "base")]

PAGE = "http://ada.localhost:4201/"
SITE = f"{ORIGIN}/ada/site/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with files to import and files to skip."""
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


def test_an_import_creates_the_realm_and_skips_hidden_files(owner: Any, folder: Path) -> None:
    said = run("import_realm", folder, SITE, public=True)
    assert paths(SITE) == TAKEN
    realm = Realm.objects.get(url=SITE)
    assert (realm.owner, realm.kind, realm.generation) == (owner, "source", 2)
    rows = RealmPermission.objects.filter(realm=realm).order_by("audience")
    assert [(row.whom, row.realm_owner) for row in rows] == [("everyone", False), ("ada", True)]
    assert f"{SITE} created: 5 written, 0 deleted, 0 unchanged, generation 2" in said


def test_an_import_writes_only_changed_files_in_one_generation(owner: Any, folder: Path) -> None:
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


def test_an_import_reports_each_file_to_its_progress_callback(owner: Any, folder: Path) -> None:
    seen: list[str] = []
    import_files(files_in(folder, SITE), SITE, owner=owner, progress=seen.append)
    assert seen == TAKEN


def test_an_import_names_skipped_files_and_files_only_in_the_realm(
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


def test_an_import_names_a_few_of_many_skipped_files(owner: Any, folder: Path) -> None:
    for number in range(30):
        (folder / f".dot{number}").touch()
    assert "  left out  and 18 more; -v 2 names all\n" in run("import_realm", folder, SITE)
    assert "  left out  .dot29 (hidden)\n" in run("import_realm", folder, SITE, verbosity=2)


def test_a_file_that_disappears_during_an_import_is_named(owner: Any, folder: Path) -> None:
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


def test_two_names_that_compose_to_one_are_named_and_not_imported(owner: Any, folder: Path) -> None:
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


def test_an_import_into_a_published_realm_is_refused(source: Realm, owner: Any) -> None:
    make.publish(source, PAGE)
    with pytest.raises(Conflict, match="only source realms have files"):
        import_files(Folder({}, {}), PAGE, owner=owner)
