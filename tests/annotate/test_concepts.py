"""`docs/concepts.md` explains every noun, every state and every role that the models have, and no other."""

import re
from pathlib import Path

import pytest
from django.conf import settings

from annotate.models import Assignment, Comparison, Conversation, GenerationRequest, Iteration, Role

PAGE = (Path(settings.BASE_DIR) / "docs" / "concepts.md").read_text()
STATEFUL = {
    "Iteration": Iteration,
    "Conversation": Conversation,
    "Generation request": GenerationRequest,
    "Comparison": Comparison,
    "Assignment": Assignment,
}


def rows(section: str) -> list[str]:
    """The first words of the rows of the first table after a heading or a bold noun."""
    table = re.search(r"^\|.*?(?=\n\n)", section, re.MULTILINE | re.DOTALL).group()
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


@pytest.mark.parametrize("noun", STATEFUL)
def test_states_are_those_of_the_model(noun: str) -> None:
    assert rows(PAGE.split(f"**{noun}** — ", 1)[1]) == STATEFUL[noun].State.values


def test_roles_are_those_that_there_are() -> None:
    assert rows(PAGE.split("## People", 1)[1]) == Role.values


def test_files_that_are_named_are_there() -> None:
    root = Path(settings.BASE_DIR)
    contributing = (root / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:annotate|trainers_ui|worker|tests|docs)/[\w/.]+)`", contributing)
    assert len(named) > 15
    assert [path for path in named if not (root / path).exists() and "NAME" not in path] == []
