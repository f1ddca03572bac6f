"""The ASGI application that granian serves: it runs the WSGI application in threads."""

from settings.wsgi import application as front

from realms.web.asgi import RealmServer  # isort: skip  needs the applications loaded just above

application = RealmServer(front)
