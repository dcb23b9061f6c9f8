"""JSON from programs, also from hostile ones."""

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class Json(JSONParser):
    """Refuses what is nested deeper than Python can follow; REST framework's own lets that become a 500."""

    def parse(self, stream, media_type=None, parser_context=None):
        """The decoded body. Raises ParseError where it is no JSON."""
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("The JSON is nested too deeply.") from None
