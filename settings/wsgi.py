"""The WSGI application. Its `Front` answers requests that don't need Django, such as public reads
of files, and passes all other requests to Django.

Only `wrap_wsgi_with_proxy_headers` reads the headers `X-Forwarded-For` and `X-Forwarded-Proto`. It
trusts these headers only if the request comes from a proxy in REALM_TRUSTED_PROXIES.
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from granian.utils.proxies import wrap_wsgi_with_proxy_headers

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

django_application = get_wsgi_application()

from realms.front import Front  # noqa: E402  the import needs Django's applications

application = Front(
    wrap_wsgi_with_proxy_headers(django_application, settings.REALM_TRUSTED_PROXIES)
)
