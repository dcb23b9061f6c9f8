"""What the documents say is there: commands, targets, options, settings, files."""

import re
import shlex
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OURS = {name: app for name, app in get_commands().items() if app in ("annotate", "worker")}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
# What `manage.py` brings itself and the documents use.
DJANGO = {"migrate", "check", "createsuperuser", "drf_create_token", "collectstatic", "shell"}


def manage_lines() -> list[tuple[str, str]]:
    """Each mention of a management command in a document, with what follows it up to the end of its line or code."""
    found = []
    for document in DOCUMENTS:
        for rest in re.findall(r"manage\.py ([a-z_]+[^`\n]*)", document.read_text()):
            found.append((document.name, rest.strip()))
    return found


@pytest.mark.parametrize(("document", "line"), manage_lines())
def test_commands_and_options_in_documents_exist(document, line):
    words = shlex.split(line.split("#")[0].replace("…", ""), posix=True)
    name = words[0]
    assert name in OURS or name in DJANGO, f"{document}: there is no command {name}"
    if name not in OURS:
        return
    parser = load_command_class(OURS[name], name).create_parser("manage.py", name)
    known = {option for action in parser._actions for option in action.option_strings}
    for word in words[1:]:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{document}: {name} has no option {word}"


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_is_documented_and_has_help(name):
    text = "".join(document.read_text() for document in DOCUMENTS)
    assert re.search(rf"\b{name}\b", text), f"no document speaks of {name}"
    command = load_command_class(OURS[name], name)
    assert command.help
    assert f"manage.py {name}" in command.create_parser("manage.py", name).format_help()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_make_targets_and_links_in_documents_exist(document):
    text = document.read_text()
    code = "\n".join(re.findall(r"`[^`]+`|^```.*?^```", text, flags=re.M | re.S))
    for target in re.findall(r"\bmake ([a-z-]+)", code):
        assert target in TARGETS, f"there is no target {target}"
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in link:
            assert (document.parent / link).exists(), f"{link} leads nowhere"


def test_every_setting_is_in_the_example_and_no_other():
    from annotate import env, settings

    assert settings.PORT
    assert (ROOT / ".env.example").read_text() == env.example()
