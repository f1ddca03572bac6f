"""Clearing definitions from the lists of definitions and of their counters."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from definitions.models import CacheGeneration, Definition

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

REALM = "http://ada.localhost:4201/"
MODULE = f"{REALM}post.tsx"
COUNTERS = "/_admin/definitions/cachegeneration/"


def browser(name: str, *permissions: str) -> Client:
    """The browser of a staff user with these permissions."""
    user = get_user_model().objects.create_user(name, password=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(headers={"host": "localhost:4201"})
    client.force_login(user)
    return client


@pytest.fixture
def built() -> Definition:
    """A module's definitions, and a counter of each scope."""
    for scope, key in (("global", ""), ("realm", REALM), ("module", MODULE)):
        CacheGeneration.objects.create(scope=scope, key=key)
    return Definition.objects.create(
        module_url=MODULE, realm_url=REALM, definitions={"Post": {}}, built_at=timezone.now(),
        build_ms=1, global_generation=0, realm_generation=0, module_generation=0,
    )  # fmt: skip


def chosen(rows: Any) -> dict[str, Any]:
    """The form that clears these rows of a list."""
    return {"action": "clear", "_selected_action": [row.pk for row in rows]}


@pytest.mark.parametrize("scope", ["global", "realm", "module"])
def test_a_counter_that_is_cleared_is_raised_and_its_definitions_go(
    built: Definition, scope: str
) -> None:
    root = browser("root", "view_cachegeneration", "clear_realm")
    counter = CacheGeneration.objects.get(scope=scope)
    said = root.post(COUNTERS, chosen([counter]), follow=True)
    assert "Cleared the definitions of" in said.content.decode()
    counter.refresh_from_db()
    assert counter.generation == 1
    assert not Definition.objects.exists()
    assert LogEntry.objects.get().change_message == "Cleared."


def test_a_definition_that_is_cleared_is_built_anew_when_asked_for(built: Definition) -> None:
    root = browser("root", "view_definition", "clear_realm")
    root.post("/_admin/definitions/definition/", chosen([built]))
    assert not Definition.objects.exists()
    assert CacheGeneration.objects.get(scope="module", key=MODULE).generation == 1


def test_who_may_only_view_definitions_can_not_clear_them(built: Definition) -> None:
    viewer = browser("lin", "view_cachegeneration")
    assert 'value="clear"' not in viewer.get(COUNTERS).content.decode()
    viewer.post(COUNTERS, chosen(CacheGeneration.objects.all()))
    assert Definition.objects.exists()
