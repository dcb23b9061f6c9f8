"""The API's description for programs (OpenAPI) and for people."""

import threading

from csp.decorators import csp_update
from django.utils.decorators import method_decorator
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView


class Schema(SpectacularAPIView):
    """OpenAPI 3, as YAML or JSON by content negotiation. Public: it tells nothing of what is stored."""

    throttle_classes = ()

    def dispatch(self, request, *args, **kwargs):
        """The description, made by one thread at a time: the library loads parts of itself while it makes the first."""
        with _one_at_a_time:
            return super().dispatch(request, *args, **kwargs)


_one_at_a_time = threading.Lock()


@method_decorator(csp_update({"img-src": ["data:"]}), name="dispatch")
class Docs(SpectacularSwaggerSplitView):
    """Readable docs, in which requests can be tried with a token or from a signed-in browser.

    Swagger's own style sheet carries its icons as data: images; nothing else is let through.
    """

    template_name = "annotate/api_docs.html"
    url_name = "api_schema"
    throttle_classes = ()


EVERYWHERE = {
    "401": "Nobody is signed in: send `Authorization: Token …`.",
    "429": "Too many requests in this minute; `Retry-After` says how many seconds to wait.",
}


def refusals_of_all(result: dict, **_) -> dict:
    """Adds to each operation the refusals that every one of them can give."""
    for operations in result["paths"].values():
        for operation in operations.values():
            for status, description in EVERYWHERE.items():
                operation["responses"][status] = {
                    "description": description,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
                }
    return result
