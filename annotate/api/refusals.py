"""Every refusal as JSON: `{"code": …, "detail": …}` with the HTTP status that says the same."""

from django.core.exceptions import RequestDataTooBig
from django.http import Http404
from rest_framework import exceptions, serializers
from rest_framework.response import Response
from rest_framework.views import exception_handler

from annotate.errors import BothsidesError, DraftConflict

CODES = {"permission_denied": "forbidden", "authentication_failed": "not_authenticated"}
"""REST framework's words where the record has one of its own or where two mean the same."""


class Refusal(serializers.Serializer):
    """Why nothing was done."""

    code = serializers.CharField(help_text="For programs: invalid, conflict, not_found, nothing_left …")
    detail = serializers.CharField(help_text="For people: one sentence.")


class InvalidInput(Refusal):
    """What is wrong with the input; nothing was changed."""

    fields = serializers.DictField(
        required=False, help_text="By the name of the input: what is wrong with it. Only where one is malformed."
    )


class DraftRefusal(Refusal):
    """Another tab or program has saved a newer draft (code `draft_conflict`), or the work was sent already."""

    draft = serializers.DictField(required=False, help_text="The draft that is stored.")
    draft_version = serializers.IntegerField(required=False, help_text="Its version.")


def answer(error: Exception, context: dict) -> Response | None:
    """The response to an exception in a view; None for what is our fault, which becomes a 500."""
    if isinstance(error, BothsidesError):
        body = {"code": error.code, "detail": error.message}
        if isinstance(error, DraftConflict):
            body |= {"draft": error.current, "draft_version": error.version}
        return Response(body, status=error.status)
    if isinstance(error, serializers.ValidationError):
        return Response({"code": "invalid", "detail": "The input is malformed.", "fields": error.detail}, status=422)
    if isinstance(error, RequestDataTooBig):
        return Response({"code": "too_large", "detail": "The body is too large."}, status=413)
    response = exception_handler(error, context)
    if response is not None:
        code = "not_found" if isinstance(error, Http404) else _code(error)
        response.data = {"code": CODES.get(code, code), "detail": str(response.data["detail"])}
    return response


def _code(error: Exception) -> str:
    return error.get_codes() if isinstance(error, exceptions.APIException) else "permission_denied"
