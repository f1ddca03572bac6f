"""The Celery task that keeps house."""

import logging
from datetime import timedelta

from celery import shared_task

from realms.housekeeping import garbage

logger = logging.getLogger(__name__)


@shared_task(ignore_result=True)
def collect_garbage() -> None:
    """Removes what nothing can reach any more. Twice at once does no harm."""
    done = garbage.collect_garbage(grace=timedelta(hours=garbage.GRACE_HOURS))
    logger.info("garbage collected: %s", done.told())
