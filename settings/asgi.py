"""The ASGI application that granian serves: the WSGI application, behind what slow clients meet."""

from settings.wsgi import application as front

from realms.web.asgi import RealmServer  # isort: skip  needs the applications loaded just above

application = RealmServer(front)
