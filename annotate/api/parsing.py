"""JSON from programs, also from hostile ones."""

from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import JSONParser

MOST = 2**31 - 1
"""The largest number that the database keeps for seconds and versions."""


class Json(JSONParser):
    """Refuses what is nested deeper than Python can follow; REST framework's own lets that become a 500."""

    def parse(self, stream, media_type=None, parser_context=None):
        """The decoded body. Raises ParseError where it is no JSON."""
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("The JSON is nested too deeply.") from None


class NoOthers:
    """Of a serializer: fields that it does not know are refused; a mistyped one would else keep its default."""

    def validate(self, given: dict) -> dict:
        """Raises ValidationError, which names the field."""
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            known = ", ".join(self.fields)
            raise ValidationError({unknown[0]: [f"There is no field {unknown[0]}. Fields: {known}."]})
        return super().validate(given)


def by_number(values: dict[str, object], what: str) -> dict[int, object]:
    """The same with numbers for keys, which JSON only knows as text. Raises ValidationError where a key is none."""
    try:
        return {int(key): value for key, value in values.items()}
    except ValueError:
        raise ValidationError(f"The keys are {what}.") from None
