"""Defines the appearance of Django's admin: the title, the menu, the style sheet and the script."""

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy


def admin_skin() -> dict[str, Any]:
    """Returns the settings of django-unfold, the package that draws the admin's pages. The menu
    shows only the pages that a user may view."""
    return {
        "SITE_TITLE": "Realm server",
        "SITE_HEADER": "Realm server",
        "SITE_SYMBOL": "hub",
        # `None` hides the link "View site". There is no single site to view, because each realm has
        # its own URL.
        "SITE_URL": None,
        "SHOW_VIEW_ON_SITE": False,
        "DASHBOARD_CALLBACK": "realms.admin.coherence.dashboard",
        "SITE_FAVICONS": [
            {
                "rel": "icon",
                "type": "image/svg+xml",
                "href": lambda request: static("realms/icon.svg"),
            }
        ],
        "STYLES": [lambda request: static("realms/admin.css")],
        "SCRIPTS": [lambda request: static("realms/admin.js")],
        "COLORS": {"primary": _BLUE},
        "SIDEBAR": {"show_all_applications": False, "navigation": _MENU},
    }


def _may_view(permission: str) -> Any:
    def allowed(request: HttpRequest) -> bool:
        return request.user.has_perm(permission)

    return allowed


def _item(title: str, icon: str, page: str, permission: str) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{page}"),
        "permission": _may_view(permission),
    }


_MENU = [
    {
        "title": "Running",
        "items": [
            _item("Coherence", "monitor_heart", "index", "realms.view_realm"),
            _item("Work", "construction", "reindex_work", "reindex.view_reindexjob"),
            _item("Publish timeline", "timeline", "realms_publication_timeline",
                  "realms.view_publication"),
            _item("Cache generations", "update", "realms_generations",
                  "definitions.view_cachegeneration"),
            _item("Clear caches", "mop", "realms_realm_clear", "realms.clear_realm"),
        ],
    },
    {
        "title": "Content",
        "items": [
            _item("Realms", "public", "realms_realm_changelist", "realms.view_realm"),
            _item("Permissions", "key", "realms_realmpermission_changelist",
                  "realms.view_realmpermission"),
            _item("Files", "description", "realms_fileversion_changelist",
                  "realms.view_fileversion"),
            _item("Publications", "publish", "realms_publication_changelist",
                  "realms.view_publication"),
        ],
    },
    {
        "title": "Derived",
        "items": [
            _item("Jobs", "checklist", "reindex_reindexjob_changelist",
                  "reindex.view_reindexjob"),
            _item("Rendered cards", "article", "reindex_indexedcard_changelist",
                  "reindex.view_indexedcard"),
            _item("Definitions", "schema", "definitions_definition_changelist",
                  "definitions.view_definition"),
            _item("Replicas", "dns", "notifications_replica_changelist",
                  "notifications.view_replica"),
        ],
    },
    {
        "title": "People",
        "items": [
            _item("Users", "person", "auth_user_changelist", "auth.view_user"),
            _item("Groups", "group", "auth_group_changelist", "auth.view_group"),
        ],
    },
]  # fmt: skip

_BLUE = {
    "50": "oklch(97% .014 254.6)",
    "100": "oklch(93.2% .032 255.6)",
    "200": "oklch(88.2% .059 254.1)",
    "300": "oklch(80.9% .105 251.8)",
    "400": "oklch(70.7% .165 254.6)",
    "500": "oklch(62.3% .214 259.8)",
    "600": "oklch(54.6% .245 262.9)",
    "700": "oklch(48.8% .243 264.4)",
    "800": "oklch(42.4% .199 265.6)",
    "900": "oklch(37.9% .146 265.5)",
    "950": "oklch(28.2% .091 267.9)",
}
