"""A plain Django project without a database and without middleware.

Its only view sends the same bytes as the realm server. It sends style sheets from the disk with
Django's `FileResponse`. It sends the module and the page from memory; these bytes are recorded
answers of the realm server. If a client already has the bytes of an answer, the view sends a 304.
"""

import os
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.decorators.http import etag

from bench.peers.recorded import saved

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], INSTALLED_APPS=[], SECRET_KEY="bench"
)
_ANSWERS = {name.removeprefix("/"): each for name, each in saved().items()}
_ROOT = Path(os.environ["BENCH_ROOT"])


@etag(lambda request, name: _ANSWERS[name].etag)
def show(request: HttpRequest, name: str) -> HttpResponseBase:
    if name.endswith(".css"):
        return FileResponse((_ROOT / name).open("rb"))
    answer = _ANSWERS[name]
    return HttpResponse(answer.body, content_type=dict(answer.headers)["content-type"])


urlpatterns = [path("<path:name>", show)]
application = get_wsgi_application()
