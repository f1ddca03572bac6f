"""Defines the Celery task that collects garbage."""

import logging
from datetime import timedelta

from celery import shared_task

from realms.housekeeping import garbage

logger = logging.getLogger(__name__)


@shared_task(ignore_result=True)
def collect_garbage() -> None:
    """Removes content that no file needs, and rows of finished work. Concurrent runs do no harm."""
    done = garbage.collect_garbage(grace=timedelta(hours=garbage.GRACE_HOURS))
    logger.info("garbage collected: %s", done.summary())
