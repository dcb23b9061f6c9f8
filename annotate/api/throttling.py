"""How many requests one person may make: enough for any program that works, too few to be in others' way."""

import logging
import time

from django.conf import settings
from redis import RedisError
from rest_framework.throttling import BaseThrottle

from annotate import streams

logger = logging.getLogger(__name__)

WINDOW = 60
"""Seconds that are counted together."""


class PerPerson(BaseThrottle):
    """Refuses with 429 and `Retry-After` once a person has made API_REQUESTS_PER_MINUTE requests in this minute.

    One counter a person and minute. REST framework's own keeps the time of every request in one value, which is read
    and written back whole and loses counts under concurrency. While Redis is away nothing is refused.
    """

    def allow_request(self, request, view) -> bool:
        if request.user.pk is None:
            return True
        key = f"bothsides:api:{request.user.pk}:{int(time.time() // WINDOW)}"
        try:
            with streams.client().pipeline() as pipe:
                made, _ = pipe.incr(key).expire(key, WINDOW).execute()
        except RedisError as error:
            logger.warning("Requests are not counted: %s", error)
            return True
        return made <= settings.API_REQUESTS_PER_MINUTE

    def wait(self) -> float:
        """Seconds until the next minute begins."""
        return WINDOW - time.time() % WINDOW
