"""Tests that the admin shows the rows of every model of the server. Even a superuser can edit only
realms and permissions, and can delete only permissions and replicas."""

from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from notifications.channels import REALM_REGISTRY, realm_definitions_cleared
from notifications.models import Replica
from realms.models import FileVersion, Realm, RealmPermission
from reindex.models import ReindexJob
from tests.support import make
from tests.support.clients.admin import (
    PUBLISHED,
    Heard,
    heard_by,
    make_one_row_of_everything,
    words_of,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


def test_every_model_is_registered() -> None:
    for app in ("notifications", "definitions", "reindex", "realms"):
        for model in apps.get_app_config(app).get_models():
            if not model._meta.proxy:
                assert admin.site.is_registered(model), model


def test_a_superuser_may_edit_realms_and_permissions_and_delete_replicas(root: Client) -> None:
    request = RequestFactory().get("/")
    request.user = get_user_model().objects.get(username="root")
    for model, options in _ours():
        if model is RealmPermission:
            continue
        assert not options.has_add_permission(request), model
        assert options.has_delete_permission(request) == (model is Replica), model
        assert options.has_change_permission(request) == (model is Realm), model


def test_every_list_and_every_row_can_be_viewed(root: Client, published: Realm) -> None:
    make_one_row_of_everything(published)
    for model, _ in _ours():
        at = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        listed = root.get(reverse(f"{at}_changelist"), {"q": "a"})
        assert listed.status_code == 200, model
        row = model._default_manager.first()
        assert row is not None, model
        shown = root.get(reverse(f"{at}_change", args=[quote(row.pk)]))
        assert shown.status_code == 200, model


def test_the_list_of_jobs_shows_progress_and_results(root: Client, published: Realm) -> None:
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    kind = {"status": 422, "title": "Wrong field", "message": 'Post has no field "titel"',
            "causes": [], "module": None, "count": 1, "cards": ["index"]}  # fmt: skip
    summary = {"errors": [kind]}
    begun = timezone.now() - timedelta(seconds=2.5)
    for status, told, ended in (("rendering", "500 of 1,200 files", None), ("done", "450", begun)):
        ReindexJob.objects.filter(pk=job.pk).update(
            status=status, total=1200, seen=500, rendered=450, carried=7000, errors=1,
            started_at=begun, finished_at=ended and begun + timedelta(seconds=1.25),
            summary=summary,
        )  # fmt: skip
        words = words_of(root.get(reverse("admin:reindex_reindexjob_changelist")))
        assert f"{status.capitalize()} {told} 7000 1" in words
    assert "1.2 s" in words
    shown = root.get(reverse("admin:reindex_reindexjob_change", args=[job.pk])).content.decode()
    assert '"index"\n' in unescape(shown)


def test_a_file_version_cannot_be_changed_by_a_superuser(root: Client, source: Realm) -> None:
    version = FileVersion.objects.filter(realm=source).earliest("pk")
    address = f"/_admin/realms/fileversion/{version.pk}/"
    assert root.post(f"{address}change/", {"path": "elsewhere"}).status_code == 403
    assert root.post(f"{address}delete/", {"post": "yes"}).status_code == 403
    assert FileVersion.objects.get(pk=version.pk).path == version.path


def test_saving_publishable_writes_no_other_field(
    root: Client, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = admin.site.get_model_admin(Realm)
    save = options.save_model

    def publish_in_between(request: Any, obj: Any, *more: Any) -> None:
        Realm.objects.filter(pk=source.pk).update(generation=99)
        save(request, obj, *more)

    monkeypatch.setattr(options, "save_model", publish_in_between)
    answer = root.post(f"/_admin/realms/realm/{source.pk}/change/", {"url": "http://x/"})
    assert answer.status_code == 302
    source.refresh_from_db()
    assert (source.publishable, source.generation) == (False, 99)
    assert source.url == "http://localhost:4201/ada/site/"


def test_a_saved_or_deleted_permission_is_announced(
    root: Client, source: Realm, ear: Heard
) -> None:
    make.user("grace")
    cleared = realm_definitions_cleared(source.url)
    told = {(REALM_REGISTRY, f"upsert:{source.url}"), (cleared.channel, cleared.payload)}
    form = {"realm": source.pk, "account": make.account("grace").pk, "read": "on"}
    assert root.post("/_admin/realms/realmpermission/add/", form).status_code == 302
    assert heard_by(ear) == told
    row = RealmPermission.objects.get(account__username="grace")
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    assert root.post("/_admin/realms/realmpermission/", chosen).status_code == 302
    assert heard_by(ear) == told


def _ours() -> list[tuple[Any, Any]]:
    apps_of_ours = {"notifications", "definitions", "reindex", "realms"}
    return [
        (model, options)
        for model, options in admin.site._registry.items()
        if model._meta.app_label in apps_of_ours
    ]
