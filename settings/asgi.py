"""Makes the ASGI application that granian, the web server, runs. The application answers cache hits
in the event loop, and passes all other requests to the WSGI application in threads. A further
thread writes the process's counters to a file (`Telling`)."""

from django.conf import settings

from settings.wsgi import application as front

# The next two modules need the Django applications, which the import of `settings.wsgi` has loaded.
from realms.web.asgi import RealmServer  # isort: skip
from realms.web.telling import Telling  # isort: skip

application = RealmServer(front)
Telling(settings.REALM_BOARD).start()
