"""Tests limits: on answers about large realms, on the errors and values of a request, and on the
files and bytes of a realm (its quotas)."""

import gzip
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import override_settings

from realms.cards import documents
from realms.content import blobs, history, listing
from realms.content.blobs import ROW_BLOB_BYTES, blob_name
from realms.errors import InvalidQuery, Malformed, OverQuota, Problems
from realms.http import bodies
from realms.models import Blob, FileVersion, Realm
from reindex.reading.references import file_url
from tests.support import make
from tests.support.web import API, ORIGIN, SOURCE, Web

pytestmark = pytest.mark.django_db(transaction=True)

#: Names of listed files. Most need escaping in JSON, URLs, SQL or patterns.
NAMES = (
    "plain.txt", "with space.txt", 'quo"te.txt', "back\\slash.txt", "per%cent%20.txt", "plus+.txt",
    "it's.txt", "üml äut/ß.txt", "日本/語 1.txt", "emoji-🙂.txt", "a&b=c?d#e.txt", "[x]{y}.txt",
    "tilde~!$(),;=@:.txt", "deep/er/and/deeper.txt", "deep/er.txt", "deep.txt", "$&.txt",
    "under_score.txt", "back\\1.txt", "a|b^c`d<e>.txt", "node_modules.txt", "x.git/kept.txt",
)  # fmt: skip
HIDDEN = ("node_modules/a.js", "x/node_modules/b.js", ".git/config", "x/.realm.json",
          ".realm.json", ".template-lintrc.js")  # fmt: skip


@pytest.fixture
def odd(owner: Any) -> Realm:
    """Returns a realm of files with unusual names."""
    files = {name: name.encode() for name in (*NAMES, *HIDDEN)}
    return make.source(f"{ORIGIN}/ada/odd/", owner, files)


def test_a_listing_made_by_sql_equals_one_made_in_python(web: Web, odd: Realm) -> None:
    told = json.loads(web.get(f"{odd.url}_mtimes", API).body)["data"]
    versions = {v.path: v for v in FileVersion.objects.filter(realm=odd)}
    assert told["id"] == odd.url
    assert told["attributes"]["mtimes"] == {
        file_url(odd.url, name): versions[name].modified_at.timestamp() for name in NAMES
    }
    for folder in ("", "deep/", "deep/er/", "日本/", "üml äut/"):
        answer = json.loads(web.get(file_url(odd.url, folder), API).body)["data"]
        below = [name.removeprefix(folder) for name in NAMES if name.startswith(folder)]
        assert answer["id"] == file_url(odd.url, folder)
        expected = {}
        for name in below:
            first, slash, _ = name.partition("/")
            meta: dict[str, Any] = {"kind": "directory"}
            if not slash:
                version = versions[folder + first]
                meta = {
                    "kind": "file",
                    "lastModified": version.modified_at.timestamp(),
                    "resourceCreatedAt": version.created_at.timestamp(),
                }
            related = file_url(odd.url, folder + first + slash)
            expected[first + slash] = {"links": {"related": related}, "meta": meta}
        # A folder that has only hidden files isn't listed.
        assert answer["relationships"] == expected


def test_a_listing_of_many_rows_has_every_file_once(web: Web, owner: Any) -> None:
    many = {f"f/{number:05}.txt": b"x" for number in range(3001)}
    realm = make.source(f"{ORIGIN}/ada/many/", owner, many)
    told = json.loads(web.get(f"{realm.url}_mtimes", API).body)["data"]["attributes"]["mtimes"]
    assert set(told) == {realm.url + path for path in many}
    folder = json.loads(web.get(f"{realm.url}f/", API).body)["data"]["relationships"]
    assert set(folder) == {path.removeprefix("f/") for path in many}


def test_many_listings_at_once_cost_one_query(
    web: Web, odd: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = listing._document

    def counted(*args: Any) -> Any:
        made.append(args[2])
        return real(*args)

    monkeypatch.setattr(listing, "_document", counted)
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(web.get(f"{odd.url}_mtimes", API).body))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert len(set(answers)) == 1
    assert made == [""], "all requests share one query"
    make.write_paths(odd, {"plain.txt": b"another"})
    assert web.get(f"{odd.url}_mtimes", API).body != answers[0], "a write makes a new listing"
    assert made == ["", ""]


def test_a_listing_is_sent_gzipped_to_clients_that_accept_gzip(web: Web, odd: Realm) -> None:
    for url in (f"{odd.url}_mtimes", odd.url):
        plain = web.get(url, API)
        for accepted in ("gzip", "br, gzip;q=0.5", "*"):
            packed = web.get(url, API, **{"Accept-Encoding": accepted})
            assert packed.headers["content-encoding"] == "gzip"
            assert gzip.decompress(packed.body) == plain.body
            assert packed.headers["content-length"] == str(len(packed.body))
        for refused in ("identity", "gzip;q=0", "br"):
            assert web.get(url, API, **{"Accept-Encoding": refused}).body == plain.body
        assert plain.headers["content-length"] == str(len(plain.body))
        assert plain.headers["vary"] == "Accept, Accept-Encoding"
        same = web.get(url, API, **{"If-None-Match": plain.headers["etag"]})
        assert (same.status, same.body) == (304, b"")
        make.write_paths(odd, {f"{len(url)}.txt": b"x"})
        changed = web.get(url, API, **{"If-None-Match": plain.headers["etag"]})
        assert changed.status == 200
        head = web.request("HEAD", url, accept=API)
        assert head.headers["content-length"] == str(len(changed.body))


# --- Many errors -------------------------------------------------------------------------------


def _atomic(web: Web, realm: Realm, operations: list[Any]) -> Any:
    return web.post(
        f"{realm.url}_atomic", {"atomic:operations": operations}, make.realm_login(realm, "ada")
    )


@pytest.mark.parametrize("count", [1, 100, 101, 20_000])
def test_of_many_errors_a_hundred_are_listed_and_the_rest_counted(
    web: Web, source: Realm, count: int
) -> None:
    bad = [{"op": "add", "href": f"../{number}"} for number in range(count)]
    answer = _atomic(web, source, bad)
    told = json.loads(answer.body)["errors"]
    assert answer.status == 400
    assert len(told) == min(count, 101)
    assert all({"status", "title", "detail"} <= set(each) for each in told)
    if count > 100:
        assert told[-1]["detail"].startswith(f"{count - 100} more problems")


def test_of_many_existing_files_a_hundred_are_listed(web: Web, source: Realm) -> None:
    data = {"type": "source", "attributes": {"content": "x"}, "meta": {}}
    there = {f"there/{number}.txt": b"x" for number in range(300)}
    make.write_paths(source, there)
    answer = _atomic(web, source, [{"op": "add", "href": p, "data": data} for p in there])
    assert answer.status == 409
    assert len(json.loads(answer.body)["errors"]) == 101


def test_an_error_that_quotes_a_long_input_is_cut(web: Web, source: Realm) -> None:
    bad = [{"op": "add", "href": "x" * 100_000 + str(number)} for number in range(100)]
    assert len(_atomic(web, source, bad).body) < 2_000_000


def test_the_status_of_many_errors_is_the_lowest_one() -> None:
    problems = Problems()
    for _ in range(200):
        problems.add(OverQuota(url="", count=0, unit="", limit=0))
    problems.add(Malformed(what="late"))
    with pytest.raises(Exception, match="201 problems") as raised:
        problems.raise_any()
    assert raised.value.status == 400  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "body",
    [
        b'{"atomic:operations": [' + b"0," * 600_000 + b"0]}",
        b'{"atomic:operations": [' + b'"",' * 600_000 + b'""]}',
        b'{"atomic:operations": ' + b"[" * 600_000 + b"]" * 600_000 + b"}",
        b'{"atomic:operations": [' + b"{}," * 600_000 + b"{}]}",
    ],
)
def test_a_body_of_more_than_500_000_values_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed, match="500,000 values"):
        bodies.parse(bodies.Atomic, body)


def test_a_long_text_with_many_commas_is_one_value() -> None:
    text = ',[{"\\' * 500_000
    body = json.dumps({"atomic:operations": [text]}).encode()
    assert bodies.parse(bodies.Atomic, body).operations == [text]


@pytest.mark.parametrize("unit", [b'\\"', b'"', b'"\\', b"\\", b'""', b'"\\" ', b'\\\\"'])
def test_unclosed_quotes_are_refused_in_linear_time(unit: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Malformed, match="not valid JSON"):
        bodies.parse(bodies.Atomic, unit * (8_000_000 // len(unit)))
    assert time.process_time() - began < 3


@pytest.mark.parametrize("shift", range(4))
def test_a_string_that_spans_pieces_counts_as_one_value(shift: int) -> None:
    """The values of a large body are counted piece by piece. A piece may end within a string or
    within an escape sequence."""
    text = b'"' + b'[\\\\,\\"{' * 300_000 + b'"'
    body = b" " * shift + b'{"atomic:operations": [' + text + b"]}"
    assert len(bodies.parse(bodies.Atomic, body).operations) == 1
    many = body[:-2] + b",0" * 500_000 + b"]}"
    with pytest.raises(Malformed, match="500,000 values"):
        bodies.parse(bodies.Atomic, many)


def test_a_read_of_many_files_stops_at_its_limit(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"many/{number:03}.txt": b"%d" % number * 1000 for number in range(500)}
    make.write_paths(source, files)
    opened: list[str] = []
    real = blobs.read_blob

    def counted(sha256: str, data: Any = None) -> bytes:
        opened.append(sha256)
        return real(sha256, data)

    monkeypatch.setattr(history, "read_blob", counted)
    monkeypatch.setattr(history, "MANY_BYTES", 10_000)
    paths = ["nowhere.txt", *files]
    read = dict(history.read_many(source, source.generation, paths))
    assert read == {"nowhere.txt": None, **{p: d for p, d in files.items() if p in read}}
    assert 3 < len(opened) == len(read) - 1 < 12
    # A read returns the first file even if this file exceeds the limit.
    monkeypatch.setattr(history, "MANY_BYTES", 1)
    assert len(list(history.read_many(source, source.generation, [*files]))) == 1, "the first file"
    monkeypatch.setattr(history, "MANY_BYTES", 10**9)
    assert dict(history.read_many(source, source.generation, [*files])) == files


# --- Quotas ------------------------------------------------------------------------------------


def _counted(realm: Realm) -> tuple[int, int]:
    realm.refresh_from_db()
    versions = FileVersion.objects.filter(realm=realm, until_generation=None)
    sizes = list(versions.values_list("size", flat=True))
    assert (realm.file_count, realm.byte_count) == (len(sizes), sum(sizes))
    return realm.file_count, realm.byte_count


def test_a_realm_counts_its_files_and_bytes(source: Realm) -> None:
    files, size = _counted(source)
    make.write_paths(source, {"a.txt": b"12345", "b.txt": b"1"})
    assert _counted(source) == (files + 2, size + 6)
    make.write_paths(source, {"a.txt": b"1", "b.txt": b"1"})
    assert _counted(source) == (files + 2, size + 2)
    make.remove(source, "a.txt", "b.txt")
    assert _counted(source) == (files, size)


def test_a_write_beyond_the_quota_of_files_changes_nothing(web: Web, source: Realm) -> None:
    files, _ = _counted(source)
    generation = source.generation
    login = make.realm_login(source, "ada")
    with override_settings(REALM_MAX_FILES=files + 1):
        assert web.upload(f"{source.url}one.txt", b"1", login).status == 204
        refused = web.upload(f"{source.url}two.txt", b"2", login)
        assert refused.status == 413
        assert f"would have {files + 2} files; the limit of this realm is {files + 1}" in (
            refused.text
        )
        assert web.upload(f"{source.url}one.txt", b"another", login).status == 204
        data = {"type": "source", "attributes": {"content": "x"}, "meta": {}}
        several = [{"op": "add", "href": f"{n}.txt", "data": data} for n in range(3)]
        assert _atomic(web, source, several).status == 413
    assert _counted(source)[0] == files + 1
    assert source.generation == generation + 2


def test_a_replaced_file_frees_its_bytes_in_the_quota(web: Web, source: Realm) -> None:
    login = make.realm_login(source, "ada")
    web.upload(f"{source.url}big.txt", b"x" * 1000, login)
    _, size = _counted(source)
    with override_settings(REALM_MAX_BYTES=size):
        assert web.upload(f"{source.url}big.txt", b"y" * 1000, login).status == 204
        assert web.upload(f"{source.url}big.txt", b"y" * 1001, login).status == 413
    with override_settings(REALM_MAX_BYTES=10):
        # A realm above its quota may still get smaller.
        assert web.upload(f"{source.url}big.txt", b"y" * 900, login).status == 204
        assert web.request("DELETE", f"{source.url}big.txt", accept="application/vnd.card+source",
                           headers=login).status == 204  # fmt: skip


def test_a_realms_own_quota_overrides_the_setting(web: Web, source: Realm) -> None:
    login = make.realm_login(source, "ada")
    Realm.objects.filter(pk=source.pk).update(max_files=0)
    assert web.upload(f"{source.url}one.txt", b"1", login).status == 413
    Realm.objects.filter(pk=source.pk).update(max_files=1000)
    with override_settings(REALM_MAX_FILES=0):
        assert web.upload(f"{source.url}one.txt", b"1", login).status == 204


def test_content_that_a_quota_refuses_is_not_stored(web: Web, source: Realm) -> None:
    login = make.realm_login(source, "ada")
    files, size = _counted(source)
    large = [bytes([number]) * (ROW_BLOB_BYTES + 1) for number in range(4)]
    text = "z" * len(large[0])
    data = {"type": "source", "attributes": {"content": text}, "meta": {}}
    before = Blob.objects.count()
    with override_settings(REALM_MAX_BYTES=size + ROW_BLOB_BYTES):
        assert web.upload(f"{source.url}new.bin", large[0], login).status == 413
        assert web.upload(f"{source.url}dot.png", large[1] * 2, login).status == 413
        assert _atomic(web, source, [{"op": "add", "href": "a.txt", "data": data}]).status == 413
    with override_settings(REALM_MAX_FILES=files):
        assert web.upload(f"{source.url}new.bin", large[2], login).status == 413
    storage = storages["blobs"]
    for refused in (large[0], large[1] * 2, text.encode(), large[2]):
        assert not storage.exists(blob_name(hashlib.sha256(refused).hexdigest()))
    assert Blob.objects.count() == before
    assert web.upload(f"{source.url}new.bin", large[3], login).status == 204
    assert web.get(f"{source.url}new.bin", accept=SOURCE).body == large[3]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_import_beyond_the_quota_is_refused(owner: Any, tmp_path: Path, dry: list[str]) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("x")
    url = f"{ORIGIN}/ada/imported/"
    with (
        override_settings(REALM_MAX_FILES=2),
        pytest.raises(CommandError, match="would have 3 files; the limit of this realm is 2"),
    ):
        call_command("import_realm", tmp_path, url, *dry)
    assert not Realm.objects.filter(url=url).exists()


def test_an_import_with_deletions_frees_quota_for_its_files(
    owner: Any, source: Realm, tmp_path: Path
) -> None:
    files, _ = _counted(source)
    for number in range(files):
        (tmp_path / f"{number}.txt").write_text("x")
    with override_settings(REALM_MAX_FILES=files):
        for more in (["--dry-run"], []):
            call_command("import_realm", tmp_path, source.url, "--delete", *more)
    assert _counted(source) == (files, files)


def test_the_admin_can_edit_a_quota(source: Realm, client: Any) -> None:
    from django.contrib.auth import get_user_model

    client.force_login(get_user_model().objects.create_superuser("root"))
    form = {"publishable": "on", "max_files": "7", "max_bytes": ""}
    client.post(f"/_admin/realms/realm/{source.pk}/change/", form)
    source.refresh_from_db()
    assert (source.max_files, source.max_bytes) == (7, None)


def test_a_page_of_cards_above_the_answer_limit_is_refused(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["index", "ada"]
    assert [card.path for card in documents.read_many(source, source.generation, paths)] == paths
    monkeypatch.setattr(documents, "MANY_BYTES", 300)
    with pytest.raises(InvalidQuery, match="/page/size: the 2 cards have"):
        documents.read_many(source, source.generation, paths)
    assert len(documents.read_many(source, source.generation, ["ada"])) == 1
