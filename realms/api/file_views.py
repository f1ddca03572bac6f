"""Contains the views that write and delete files."""

import hashlib
from email.utils import format_datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from definitions.extensions import EXECUTABLE_EXTENSIONS
from realms import errors
from realms.access import auth
from realms.addresses import SOURCE_ENDINGS, check_path
from realms.cards import documents
from realms.content import files
from realms.content.locks import locked_realm
from realms.content.resolve import resolve
from realms.http import headers
from realms.http.conditions import NO_CONDITIONS, Conditions
from realms.http.requests import read_body
from realms.models import Realm

READING = ("GET", "HEAD")


def write(request: HttpRequest, url: str) -> HttpResponse:
    """Stores the request's body as the file at a URL."""
    realm, path = _target(request, url)
    data = read_body(request, settings.FILE_SIZE_LIMIT_BYTES, path)
    files.check_size(path, data)
    with locked_realm(realm) as current:
        _check_conditions(request, current, path)
        written = files.write_files(current, {path: data})[path]
    response = HttpResponse(status=204)
    response["ETag"] = files.etag(hashlib.sha256(data).hexdigest(), "source")
    response["Last-Modified"] = format_datetime(written.modified_at, usegmt=True)
    response["X-Created"] = format_datetime(written.created_at, usegmt=True)
    return _of_realm(response, realm.url, written.generation)


def delete(request: HttpRequest, url: str) -> HttpResponse:
    """Deletes a file. The URL may lack the file's extension."""
    realm, path = _target(request, url)
    with locked_realm(realm) as current:
        path = _with_extension(realm.url, path)
        if documents.has_file(current, path):
            _check_conditions(request, current, path)
        generation = files.delete_files(current, [path])
    return _of_realm(HttpResponse(status=204), realm.url, generation)


def _check_conditions(request: HttpRequest, realm: Realm, path: str) -> None:
    """Raises PreconditionFailed if a condition of the request, such as If-Match, fails for the
    current file. The caller holds the realm's write lock."""
    conditions = Conditions.of(request.META)
    if conditions is NO_CONDITIONS:
        return
    etags, modified_at = files.validators(realm, path)
    conditions.check_write(realm.url + path, etags, modified_at)


def _target(request: HttpRequest, url: str) -> tuple[Realm, str]:
    """Returns the realm and the file's path for the URL of a write. Raises an error if the caller
    may not write there."""
    realm = Realm.objects.containing(url).first()
    if realm is None:
        raise errors.NotFound(url=url)
    auth.authorize(request, realm, "write")
    if realm.kind != Realm.Kind.SOURCE:
        raise errors.MethodNotAllowed(
            READING,
            method=f"{request.method} of a file in a {realm.kind} realm",
            expected="a file in a source realm",
        )
    return realm, check_path(url.removeprefix(realm.url), realm.url)


def _with_extension(realm_url: str, path: str) -> str:
    """Returns the full path of the file that `path` names. `path` may lack the file's extension if
    the extension is one of SOURCE_ENDINGS. Returns `path` itself if there is no such file."""
    if path.endswith(EXECUTABLE_EXTENSIONS):
        return path
    found = resolve(realm_url + path, SOURCE_ENDINGS)
    return found.file.path if found is not None and found.file is not None else path


def _of_realm(response: HttpResponse, realm_url: str, generation: int) -> HttpResponse:
    del response["Content-Type"]
    headers.add(response, headers.of_write(realm_url, generation))
    return response
