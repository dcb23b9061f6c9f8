"""How the readers are to take what can be taken in more than one way."""

from dataclasses import dataclass, field, fields

from annotate.errors import Invalid


def _choice(default: str, *others: str, says: str):
    return field(default=default, metadata={"choices": (default, *others), "says": says})


@dataclass(frozen=True)
class Options:
    """The choices that a person has. Each field's metadata holds its `choices` and a sentence, `says`."""

    few_shot: str = _choice(
        "apart",
        "whole",
        says="A prompt with examples of its own (Q: … A: … Q: … A:) becomes turns, or stays one turn of the user.",
    )
    broken: str = _choice(
        "mend",
        "refuse",
        says="Dialogue with empty turns, two turns of one speaker in a row or a missing last answer is mended and "
        "counted, or its line is a bad line.",
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value, choices = getattr(self, one.name), one.metadata["choices"]
            if value not in choices:
                raise Invalid(f"{one.name} is {' or '.join(choices)}, not {value!r}.")
