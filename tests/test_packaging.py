"""The files around the code say what the code says."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose
from packaging.requirements import Requirement
from packaging.version import Version

from annotate import processes

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> dict:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_the_example_documents_every_setting():
    command = [sys.executable, "-c", "from annotate import env, settings; print(env.example(), end='')"]
    written = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    assert (ROOT / ".env.example").read_text() == written.stdout, "run: make env-example"


def test_compose_keeps_to_the_specification():
    names = _validated(COMPOSE.read_text()).service_names()
    assert sorted(names) == ["beat", "migrate", "postgres", "valkey", "web", "worker"]


def test_a_misspelt_compose_file_would_be_noticed():
    misspelt = COMPOSE.read_text().replace("healthcheck:", "helthcheck:")
    with pytest.raises(ValueError, match="helthcheck"):
        _validated(misspelt)


@pytest.mark.parametrize(
    ("service", "arguments"), [("web", processes.WEB), ("worker", processes.WORKER), ("beat", processes.BEAT)]
)
def test_compose_runs_the_commands_that_up_runs(services, service, arguments):
    command = shlex.split(services[service]["command"])
    assert command[: len(arguments) + 1] == ["python", *arguments]


def test_the_site_waits_for_what_it_needs(services):
    for service in ("web", "worker", "beat"):
        conditions = {name: need["condition"] for name, need in services[service]["depends_on"].items()}
        assert conditions == {
            "postgres": "service_healthy",
            "valkey": "service_healthy",
            "migrate": "service_completed_successfully",
        }
    for service in ("postgres", "valkey", "web"):
        assert services[service]["healthcheck"]["test"]


def test_every_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += [Requirement(text) for text in extra]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[_normal(name)] = Version(version)
    # PyTorch's builds differ from machine to machine, so a range must do.
    loose = {"torch", "bothsides"}
    for requirement in wanted:
        name = _normal(requirement.name)
        if name not in loose:
            assert requirement.specifier.contains(pins[name]), requirement
    assert not loose & pins.keys()


def test_the_command_line_is_in_the_image():
    assert "manage.py" in (ROOT / ".dockerignore").read_text()


def _validated(text: str) -> PyCompose:
    # The validator knows neither `<<`, which PyYAML resolves, nor `${NAME:-default}` and `${NAME:?reason}`.
    text = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", text)
    text = re.sub(r"\$\{\w+:\?[\w .]+\}", "given", text)
    assert "${" not in text
    return PyCompose.from_json(json.dumps(yaml.safe_load(text)))


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
