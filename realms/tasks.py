"""Defines the Celery task that collects garbage."""

import logging
from datetime import timedelta

from celery import shared_task

from realms.housekeeping import garbage

logger = logging.getLogger(__name__)


@shared_task(ignore_result=True)
def collect_garbage() -> None:
    """Removes old file versions, other content that nothing uses, and rows of finished work. Two
    runs at the same time do no harm."""
    done = garbage.collect_garbage(grace=timedelta(hours=garbage.GRACE_HOURS))
    logger.info("the garbage collector removed %s", done.summary())
