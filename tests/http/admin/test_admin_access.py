"""Tests the admin's permissions, CSRF tokens and hosts."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from definitions.models import CacheGeneration
from realms.models import Realm
from tests.support.clients.admin import (
    PUBLISHED,
    address_of,
    browser_of,
    make_staff,
    newest_of,
    press,
    words_of,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

START = "/_admin/"
LIVE = "/_admin/coherence/"
CLEAR = "/_admin/clear/"


def test_visitors_and_users_without_staff_status_are_refused(published: Realm) -> None:
    for browser in (
        Client(headers={"host": "localhost:4201"}),
        browser_of(get_user_model().objects.get(username="ada")),
    ):
        for page in (START, LIVE, "/_admin/work/", "/_admin/timeline/"):
            assert browser.get(page)["Location"].startswith("/_admin/login/")
        assert browser.post(CLEAR, {"all": "on"})["Location"].startswith("/_admin/login/")
        for name in ("publish", "rollback", "remove"):
            answer = browser.post(address_of(published, name), {"publication": "1"})
            assert answer["Location"].startswith("/_admin/login/")
    assert newest_of(published).generation == 2


def test_viewing_clearing_and_publishing_are_separate_permissions(published: Realm) -> None:
    stranger = browser_of(make_staff("grace"))
    assert "You have no permission to view realms" in words_of(stranger.get(START))
    assert stranger.get(LIVE).status_code == 403
    viewer = browser_of(make_staff("lin", "view_realm"))
    shown = words_of(viewer.get(START))
    assert "Publish…" not in shown
    assert "Clear…" not in shown
    assert viewer.post(CLEAR, {"realm": PUBLISHED}).status_code == 403
    assert viewer.post(address_of(published, "publish")).status_code == 403
    clearer = browser_of(make_staff("sam", "view_realm", "clear_realm"))
    assert "Publish…" not in words_of(clearer.get(START))
    assert "Clear…" in words_of(clearer.get(START))
    assert clearer.post(CLEAR, {"realm": PUBLISHED}).status_code == 302
    assert clearer.post(address_of(published, "publish")).status_code == 403


@pytest.mark.parametrize("query", ["bumped_by__startswith={}", "bumped_by={}", "q={}"])
def test_a_filter_reveals_no_cause_that_its_user_may_not_see(published: Realm, query: str) -> None:
    CacheGeneration.objects.create(scope="module", key="x", bumped_by="write of secret.json")
    page = "/_admin/definitions/cachegeneration/?" + query.format("write of secret.json")
    viewer = browser_of(make_staff("lin", "view_cachegeneration"))
    assert "secret" not in viewer.get(page.partition("?")[0]).content.decode()
    found = viewer.get(page)
    assert (found.status_code, found.context and found.context["cl"].result_count) in [
        (400, None), (302, None), (200, 0),
    ], "the number of rows says whether the guess is right"  # fmt: skip
    reader = browser_of(make_staff("eve", "view_cachegeneration", "view_realm"))
    assert reader.get(page).context["cl"].result_count == 1


def test_staff_users_publish_with_their_own_rights(published: Realm) -> None:
    other = browser_of(make_staff("grace", "view_realm", "publish_realm"))
    for name in ("publish", "rollback", "remove"):
        answer = press(other, published, name, publication="1")
        assert "@grace:localhost is not allowed" in words_of(answer), name
    ada = get_user_model().objects.get(username="ada")
    ada.is_staff = True
    ada.save()
    ada.user_permissions.add(Permission.objects.get(codename="publish_realm"))
    press(browser_of(ada), published, "publish")
    assert newest_of(published).by == "ada"


def test_actions_need_a_csrf_token_and_are_never_framed(published: Realm) -> None:
    user = get_user_model().objects.create_superuser("root", password="root")
    strict = Client(enforce_csrf_checks=True, headers={"host": "localhost:4201"})
    strict.force_login(user)
    assert strict.post(address_of(published, "publish")).status_code == 403
    assert strict.post(CLEAR, {"all": "on"}).status_code == 403
    assert strict.get("/_admin/work/1/cancel/").status_code == 405
    page = strict.get(address_of(published, "publish"))
    assert page["X-Frame-Options"] == "DENY"
    token = str(page.context["csrf_token"])
    answer = strict.post(address_of(published, "publish"), {"csrfmiddlewaretoken": token})
    assert answer.status_code == 302
    assert newest_of(published).generation == 3


def test_the_admin_does_not_answer_at_a_published_realms_host() -> None:
    elsewhere = Client(headers={"host": "ada.localhost:4201"})
    assert elsewhere.get("/_admin/").status_code == 404
    assert elsewhere.get("/_admin/login/").status_code == 404
