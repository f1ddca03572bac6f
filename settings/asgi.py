"""The ASGI application that granian serves. It answers cache hits in the event loop, and passes all
other requests to the WSGI application in threads."""

from django.conf import settings

from settings.wsgi import application as front

from realms.web.asgi import RealmServer  # isort: skip  needs the applications loaded just above
from realms.web.telling import Telling  # isort: skip  needs these applications, too

application = RealmServer(front)
Telling(settings.REALM_BOARD).start()
