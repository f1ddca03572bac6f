"""Tests what the command `collect_garbage` and the daily task print and remove."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from realms.content.blobs import store_blob
from realms.models import Realm
from realms.tasks import collect_garbage as collect_garbage_task
from tests.support.data.garbage import LARGE, age, in_storage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("collect_garbage", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_command_counts_what_it_removes_or_would_remove(source: Realm) -> None:
    store_blob(LARGE)
    age(0.5)
    assert "would remove 0 publications, 0 file versions, 0 blobs" in run("--dry-run")
    assert "1 blobs with 0.1 MB" in run("--dry-run", "--grace", "0.5")
    assert "removed 0 publications, 0 file versions, 1 blobs" in run("--grace", "0.5")
    assert not in_storage(LARGE)


@pytest.mark.parametrize("hours", ["soon", "-1", "", "nan", "1e400"])
def test_an_invalid_grace_period_is_refused(hours: str) -> None:
    with pytest.raises(CommandError, match="is not a number of hours"):
        run(f"--grace={hours}")


def test_the_daily_task_removes_only_old_content(source: Realm) -> None:
    store_blob(LARGE)
    collect_garbage_task()
    assert in_storage(LARGE)
    age()
    collect_garbage_task()
    assert not in_storage(LARGE)
