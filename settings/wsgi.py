"""The WSGI application that granian serves: the front, with Django behind it."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

django_application = get_wsgi_application()

from realms.front import Front  # noqa: E402  needs the applications that Django has just loaded

application = Front(django_application)
