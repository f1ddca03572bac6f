"""The URL patterns of the admin, the server's endpoints (`/_name`), pinned reads (`/_at/`), and
realms. With a pinned read, a worker reads a file of a realm at one generation."""

from django.contrib import admin
from django.urls import path, re_path
from django.views.generic import RedirectView

from realms.api import health_views, reindex_views, routes, server_views
from realms.coherence import metrics

urlpatterns = [
    path("_admin", RedirectView.as_view(url="/_admin/")),
    path("_admin/", admin.site.urls),
    path("_server-session", server_views.server_session),
    path("_realm-auth", server_views.realm_auth),
    path("_create-realm", server_views.create_realm),
    path("_publish-realm", server_views.publish_realm),
    path("_unpublish-realm", server_views.unpublish_realm),
    path("_delete-realm", server_views.delete_realm),
    path("_metrics", metrics.metrics),
    path("_liveness", health_views.liveness),
    path("_readiness", health_views.readiness),
    path("_publish-progress", reindex_views.publish_progress),
    re_path(r"^_at/(?P<path>(?s:.*))\Z", routes.pinned),
    # A realm's own URL never has a path that starts with `/_`. But if a realm is at `/`, the paths
    # of its endpoints start with `/_`.
    re_path(rf"^(?:(?!_)|(?=(?:{'|'.join(routes.ENDPOINTS)})\Z))", routes.realm),
    re_path(r"^_", server_views.unknown),
]

handler500 = "realms.http.error_border.uncaught"
