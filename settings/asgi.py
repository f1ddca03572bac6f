"""The ASGI application that granian serves. It answers cache hits in the event loop, and passes all
other requests to the WSGI application in threads."""

from django.conf import settings

from settings.wsgi import application as front

# The next two modules need the Django applications that `settings.wsgi` has loaded.
from realms.web.asgi import RealmServer  # isort: skip
from realms.web.telling import Telling  # isort: skip

application = RealmServer(front)
Telling(settings.REALM_BOARD).start()
