"""Lists page by page, the oldest first: what came `after` an id, at most `limit` of it."""

from collections.abc import Callable

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param


class PageInput(serializers.Serializer):
    """Which part of a list is wanted."""

    after = serializers.IntegerField(
        default=0, min_value=0, max_value=2**63 - 1, help_text="Only those whose id is greater."
    )
    limit = serializers.IntegerField(default=50, min_value=1, max_value=500, help_text="At most so many.")


def one_page(
    request: Request, rows: QuerySet, *, after: int, limit: int, shown_as: Callable[[list], list[dict]]
) -> Response:
    """The rows of one page, and the address of the next one."""
    # One more than is shown tells whether there is a next page, without counting.
    found = list(rows.filter(id__gt=after).order_by("id")[: limit + 1])
    shown, more = found[:limit], len(found) > limit
    following = replace_query_param(request.build_absolute_uri(), "after", shown[-1].pk) if more else None
    return Response({"next": following, "results": shown_as(shown)})
