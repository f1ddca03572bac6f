"""Tests that the admin can delete the row of a replica that hasn't reported for ten minutes. The
rows of all other replicas can't be deleted."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.test import Client

from notifications.models import Replica, ReplicaGeneration
from tests.support.clients.admin import PUBLISHED, browser_of, make_replica, make_staff, words_of

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/_admin/notifications/replica/"
GONE = timedelta(minutes=11)


@pytest.fixture(autouse=True)
def replicas(transactional_db: None) -> None:
    """Makes the rows of two replicas that have ended for good, and of one that is restarting. The
    first two haven't reported for 11 minutes, and the third hasn't reported for 9 minutes."""
    make_replica("gone", {PUBLISHED: 3}, GONE)
    make_replica("too", {}, GONE)
    make_replica("restarting", {PUBLISHED: 3}, timedelta(minutes=9))


def delete(browser: Client, name: str) -> int:
    return browser.post(f"{LIST}{name}/delete/", {"post": "yes"}).status_code


def delete_chosen(browser: Client, *names: str, **more: str) -> Any:
    chosen = {"action": "delete_selected", "_selected_action": [*names], **more}
    return browser.post(LIST, chosen, follow=True)


def names() -> set[str]:
    return set(Replica.objects.values_list("name", flat=True))


def test_a_replica_that_is_gone_can_be_deleted_and_the_log_says_by_whom(root: Client) -> None:
    assert delete(root, "gone") == 302
    assert names() == {"too", "restarting"}
    assert not ReplicaGeneration.objects.filter(replica_id="gone").exists()
    entry = LogEntry.objects.get(action_flag=DELETION)
    assert (entry.object_repr, entry.user.get_username()) == ("gone", "root")


def test_a_replica_that_has_reported_lately_can_not_be_deleted(root: Client) -> None:
    assert delete(root, "restarting") == 403
    assert "delete/" not in root.get(f"{LIST}restarting/change/").content.decode()
    assert f"{LIST}gone/delete/" in root.get(f"{LIST}gone/change/").content.decode()
    assert names() == {"gone", "too", "restarting"}


def test_several_replicas_are_deleted_only_if_all_are_gone(root: Client) -> None:
    assert "gone" in words_of(delete_chosen(root, "gone", "too"))
    assert delete_chosen(root, "gone", "restarting", post="yes").status_code == 403
    assert names() == {"gone", "too", "restarting"}
    delete_chosen(root, "gone", "too", post="yes")
    assert names() == {"restarting"}
    assert LogEntry.objects.filter(action_flag=DELETION).count() == 2


def test_staff_need_the_permission_to_delete_replicas() -> None:
    viewer = browser_of(make_staff("lin", "view_replica"))
    assert delete(viewer, "gone") == 403
    delete_chosen(viewer, "gone", post="yes")
    assert "gone" in names()
    assert delete(browser_of(make_staff("sam", "view_replica", "delete_replica")), "gone") == 302
    assert "gone" not in names()
