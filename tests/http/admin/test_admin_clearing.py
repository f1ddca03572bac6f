"""Clears caches from the admin. Checks that the admin asks for confirmation, notifies all replicas,
and shows which replicas have cleared their caches."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from definitions.models import Definition
from notifications.channels import REALM_FILE_CHANGES
from notifications.models import Replica
from realms.models import Realm
from tests.support.clients.admin import (
    PUBLISHED,
    Heard,
    definitions_counter,
    heard_by,
    make_one_row_of_everything,
    make_replica,
    words_of,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

CLEAR = "/_admin/clear/"


def test_clear_asks_first_then_broadcasts_and_drops_definitions(
    root: Client, published: Realm, ear: Heard
) -> None:
    make_replica("a", {PUBLISHED: 2})
    before = definitions_counter()
    asked = words_of(root.get(CLEAR, {"realm": PUBLISHED}))
    assert f"Clear the caches of {PUBLISHED}?" in asked
    assert "definitions; replicas: a." in asked
    assert definitions_counter() == before
    heard_by(ear)
    answer = root.post(CLEAR, {"realm": PUBLISHED}, follow=True)
    assert f"Cleared the caches of {PUBLISHED}." in words_of(answer)
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in heard_by(ear)
    assert definitions_counter() == before + 1
    published.refresh_from_db()
    assert published.generation == 2
    assert LogEntry.objects.get().user.get_username() == "root"


def test_a_clear_that_names_two_subjects_is_refused(root: Client, published: Realm) -> None:
    before = definitions_counter()
    both = {"realm": PUBLISHED, "definitions": "on"}
    said = words_of(root.post(CLEAR, both, follow=True))
    assert "Not done: choose only one target: a realm, a module, or all definitions" in said
    assert definitions_counter() == before
    assert not LogEntry.objects.exists()


def test_the_answers_of_replicas_are_shown_as_they_arrive(root: Client, published: Realm) -> None:
    make_replica("a", {PUBLISHED: 2})
    make_replica("b", {PUBLISHED: 2}, silent=timedelta(minutes=5))
    answers = root.post(CLEAR, {"realm": PUBLISHED})["Location"]
    said = words_of(root.get(answers))
    assert "Waiting for answers" in said
    assert "a live, no answer yet" in said
    assert "b ⚠ has not reported" in said
    Replica.objects.filter(name="a").update(watermark_at=timezone.now() + timedelta(seconds=1))
    said = words_of(root.get(answers))
    assert "No more answers are expected." in said
    assert "a ✓ cleared" in said


def test_one_module_or_everything_can_be_cleared(
    root: Client, published: Realm, source: Realm, ear: Heard
) -> None:
    make_one_row_of_everything(published)
    module = f"{PUBLISHED}post.tsx"
    assert f"the definitions of {module}" in words_of(root.get(CLEAR, {"module": module}))
    assert root.post(CLEAR, {"module": module}).status_code == 302
    assert not Definition.objects.filter(module_url=module).exists()
    heard_by(ear)
    assert root.post(CLEAR, {"all": "on"}).status_code == 302
    heard = heard_by(ear)
    assert {(REALM_FILE_CHANGES, f"{url}:*") for url in (PUBLISHED, source.url)} <= heard
