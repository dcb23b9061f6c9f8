"""Whether the web process answers, and whether everything that it needs does."""

import redis
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from annotate import streams


@never_cache
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """200 while this process answers; asks nothing else, so that a sick database restarts no web server."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when database, broker and one worker are there, else 503 with `missing` naming what is not."""
    parts = {"database": _database, "broker": _broker, "worker": _worker}
    missing = [name for name, answers in parts.items() if not answers()]
    if missing:
        return JsonResponse({"status": "unavailable", "missing": missing}, status=503)
    return JsonResponse({"status": "ok", "missing": []})


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return True
    except DatabaseError:
        return False


def _broker() -> bool:
    try:
        return bool(streams.client().ping())
    except redis.RedisError:
        return False


def _worker() -> bool:
    try:
        return bool(streams.heartbeats())
    except redis.RedisError:
        return False
