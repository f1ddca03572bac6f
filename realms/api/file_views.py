"""Files over HTTP, written and deleted."""

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
from realms.content.resolve import realm_around, resolve
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
        standing = _standing(realm)
        _check_conditions(request, standing, path)
        written = files.write_files(standing, {path: data})[path]
    response = HttpResponse(status=204)
    response["ETag"] = files.etag(hashlib.sha256(data).hexdigest(), "source")
    response["Last-Modified"] = format_datetime(written.modified_at, usegmt=True)
    response["X-Created"] = format_datetime(written.created_at, usegmt=True)
    return _of_realm(response, realm.url, written.generation)


def delete(request: HttpRequest, url: str) -> HttpResponse:
    """Deletes a file, which may be named without its extension."""
    realm, path = _target(request, url)
    with realm_write_lock(realm.url):
        standing, path = _standing(realm), _spelled(realm.url, path)
        if documents.has_file(standing, path):
            _check_conditions(request, standing, path)
        generation = files.delete_files(standing, [path])
    return _of_realm(HttpResponse(status=204), realm.url, generation)


def _check_conditions(request: HttpRequest, realm: Realm, path: str) -> None:
    """Raises PreconditionFailed unless the file is as the client says. The caller holds the lock
    of the realm."""
    etags, modified_at = files.validators(realm, path)
    Conditions.of(request).check_write(realm.url + path, etags, modified_at)


def _target(request: HttpRequest, url: str) -> tuple[Realm, str]:
    """The realm that a write means and the path in it, once the caller may write there."""
    realm = realm_around(url)
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


def _standing(realm: Realm) -> Realm:
    """The realm, looked up again under its lock: it may have been deleted while we waited, and
    somebody else's may stand at its URL."""
    standing = Realm.objects.filter(pk=realm.pk).first()
    if standing is None:
        raise errors.NotFound(url=realm.url)
    return standing


def _spelled(realm_url: str, path: str) -> str:
    """The file that a path without its extension means, as in reading."""
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
