"""Writing and deleting files over HTTP."""

import hashlib
from email.utils import format_datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from realms import errors
from realms.access import auth
from realms.addresses import EXECUTABLE_EXTENSIONS, check_path
from realms.cards import documents
from realms.content import files
from realms.content.locks import realm_write_lock
from realms.content.resolve import resolve
from realms.http.conditions import Conditions
from realms.http.requests import read_body
from realms.models import Realm

READING = ("GET", "HEAD")


def write(request: HttpRequest, url: str) -> HttpResponse:
    """Stores the body as a file."""
    realm, path = _target(request, url)
    data = read_body(request, settings.FILE_SIZE_LIMIT_BYTES, path)
    files.check_size(path, data)
    with realm_write_lock(realm.url):
        current = _current(realm)
        _check_conditions(request, current, path)
        written = files.write_files(current, {path: data})[path]
    response = HttpResponse(status=204)
    response["ETag"] = files.etag(hashlib.sha256(data).hexdigest(), "source")
    response["Last-Modified"] = format_datetime(written.modified_at, usegmt=True)
    response["X-Created"] = format_datetime(written.created_at, usegmt=True)
    return _of_realm(response, realm.url, written.generation)


def delete(request: HttpRequest, url: str) -> HttpResponse:
    """Deletes a file. The URL may lack its extension."""
    realm, path = _target(request, url)
    with realm_write_lock(realm.url):
        current, path = _current(realm), _with_extension(realm.url, path)
        if documents.has_file(current, path):
            _check_conditions(request, current, path)
        generation = files.delete_files(current, [path])
    return _of_realm(HttpResponse(status=204), realm.url, generation)


def _check_conditions(request: HttpRequest, realm: Realm, path: str) -> None:
    """Raises PreconditionFailed unless the request's conditions match the file. The caller holds
    the realm's write lock."""
    etags, modified_at = files.validators(realm, path)
    Conditions.of(request).check_write(realm.url + path, etags, modified_at)


def _target(request: HttpRequest, url: str) -> tuple[Realm, str]:
    """The realm and the path that a write addresses. Raises unless the caller may write there."""
    realm = Realm.objects.containing(url).first()
    if realm is None:
        raise errors.NotFound(url=url)
    auth.authorize(request, realm, "write")
    if realm.kind != Realm.Kind.SOURCE:
        raise errors.MethodNotAllowed(
            READING,
            method=f"{request.method} in a {realm.kind} realm",
            expected="its source realm",
        )
    return realm, check_path(url.removeprefix(realm.url), realm.url)


def _current(realm: Realm) -> Realm:
    """The realm, read again under its lock. While the request waited, the realm may have been
    deleted and another user's created at its URL."""
    current = Realm.objects.filter(pk=realm.pk).first()
    if current is None:
        raise errors.NotFound(url=realm.url)
    return current


def _with_extension(realm_url: str, path: str) -> str:
    """The path of the file that a path without extension names, by the same rules as for reads."""
    if path.endswith(EXECUTABLE_EXTENSIONS):
        return path
    found = resolve(realm_url + path, ("", *EXECUTABLE_EXTENSIONS, ".json"))
    return found.file.path if found is not None and found.file is not None else path


def _of_realm(response: HttpResponse, realm_url: str, generation: int) -> HttpResponse:
    del response["Content-Type"]
    response["X-Boxel-Realm-Url"] = realm_url
    response["X-Realm-Generation"] = str(generation)
    response["Cache-Control"] = "no-store"
    response["Access-Control-Allow-Origin"] = "*"
    response["Access-Control-Expose-Headers"] = "*"
    return response
