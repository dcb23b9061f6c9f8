"""The files around the code say what the code says."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose
from django.conf import settings
from packaging.requirements import Requirement
from packaging.version import Version

from annotate import env, probe, processes

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yml"
SITE = ("web", "worker", "worker-gpu", "beat")
HADOLINT = Path(sys.executable).parent / "hadolint"


def _compose_command() -> list[str]:
    """Docker Compose, as Docker's plugin or by itself; it needs no engine to read a file."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


COMPOSE_COMMAND = _compose_command()


@pytest.fixture(scope="module")
def services() -> dict:
    return yaml.safe_load(_filled_in(COMPOSE.read_text()))["services"]


def test_the_example_documents_every_setting():
    command = [sys.executable, "-c", "from annotate import env, settings; print(env.example(), end='')"]
    written = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    assert (ROOT / ".env.example").read_text() == written.stdout, "run: make env-example"


def test_compose_keeps_to_the_specification():
    names = _validated(COMPOSE.read_text()).service_names()
    site = ["beat", "migrate", "postgres", "valkey", "vllm", "web", "worker", "worker-gpu"]
    assert sorted(names) == site


def test_a_misspelt_compose_file_would_be_noticed():
    misspelt = COMPOSE.read_text().replace("healthcheck:", "helthcheck:")
    with pytest.raises(ValueError, match="helthcheck"):
        _validated(misspelt)


@pytest.mark.parametrize(
    ("service", "arguments"),
    [
        ("web", processes.WEB),
        ("worker", processes.WORKER),
        ("worker-gpu", processes.WORKER),
        ("beat", processes.BEAT),
    ],
)
def test_compose_runs_the_commands_that_up_runs(services, service, arguments):
    command = shlex.split(services[service]["command"])
    assert command[: len(arguments) + 1] == ["python", *arguments]


def test_the_site_waits_for_what_it_needs(services):
    for service in SITE:
        conditions = {name: need["condition"] for name, need in services[service]["depends_on"].items()}
        assert conditions == {
            "postgres": "service_healthy",
            "valkey": "service_healthy",
            "migrate": "service_completed_successfully",
        }


def test_one_worker_runs_unless_told_otherwise(services):
    example = (ROOT / ".env.example").read_text()
    chosen = set(re.search(r"^COMPOSE_PROFILES=(.*)$", example, flags=re.M).group(1).split(","))
    running = {
        name for name, service in services.items() if not service.get("profiles") or chosen & {*service["profiles"]}
    }
    assert running == {"postgres", "valkey", "migrate", "web", "worker", "beat"}


def test_every_service_is_looked_after(services):
    for name, service in services.items():
        assert service["logging"]["options"]["max-size"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        if name != "migrate":
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name
            assert service["deploy"]["resources"]["limits"]["memory"], name


@pytest.mark.parametrize(
    ("service", "process"), [("web", "web"), ("worker", "worker"), ("worker-gpu", "worker"), ("beat", "beat")]
)
def test_the_probes_are_those_that_there_are(services, service, process):
    assert services[service]["healthcheck"]["test"] == ["CMD", "python", "-m", "annotate.probe", process]
    assert f'"{process}"' in inspect.getsource(probe.main)


def test_a_worker_has_the_time_to_give_back_what_it_holds(services):
    for service in ("worker", "worker-gpu"):
        assert _seconds(services[service]["stop_grace_period"]) > settings.WORKER_DRAIN_SECONDS + 10 + 10


def test_database_and_broker_cannot_be_reached_from_outside(services):
    compose = yaml.safe_load(COMPOSE.read_text())
    assert compose["networks"]["record"]["internal"] is True
    for service in ("postgres", "valkey"):
        assert services[service]["networks"] == ["record"]
        assert "ports" not in services[service]


def test_the_site_writes_into_its_volume_only_and_may_do_little(services):
    for service in (*SITE, "migrate"):
        assert services[service]["read_only"] is True
        assert services[service]["cap_drop"] == ["ALL"]
        assert services[service]["volumes"] == ["files:/data"]
        assert services[service]["tmpfs"] == ["/tmp"]  # noqa: S108 (of the container)


def test_postgres_takes_all_connections_that_the_site_may_open(services):
    most = int(re.search(r"max_connections=(\d+)", services["postgres"]["command"]).group(1))
    # Web and a worker; three for each job, and some for beat, commands and a person.
    processes_that_pool = settings.WEB_PROCESSES + 1
    assert processes_that_pool * settings.DATABASE_POOL_SIZE + 3 * settings.WORKER_JOBS + 20 <= most


def test_settings_that_compose_gives_exist(services):
    known = set(env.variables)
    for service in (*SITE, "migrate"):
        assert set(services[service]["environment"]) <= known


def test_every_variable_of_compose_is_documented():
    named = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    told = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs/deploy.md").read_text())) | set(env.variables)
    assert named - told == set()


@pytest.mark.skipif(not COMPOSE_COMMAND, reason="no Docker Compose here")
@pytest.mark.parametrize(
    ("profiles", "running"),
    [
        ("servers,cpu", {"postgres", "valkey", "migrate", "web", "worker", "beat"}),
        ("gpu", {"migrate", "web", "worker-gpu", "beat"}),
        ("servers,gpu,vllm", {"postgres", "valkey", "migrate", "web", "worker-gpu", "beat", "vllm"}),
    ],
)
def test_docker_compose_itself_takes_the_file(tmp_path, profiles, running):
    (tmp_path / ".env").write_text(f"SECRET_KEY=k\nSITE_URL=https://b.example.org\nCOMPOSE_PROFILES={profiles}\n")
    shutil.copy(COMPOSE, tmp_path)
    command = [*COMPOSE_COMMAND, "config", "--format", "json"]
    # Compose takes what it is to fill in from its environment too.
    only = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=only, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == running


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint has no package for this machine")
def test_the_dockerfile_is_what_its_linter_likes():
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_no_right_that_it_does_not_need():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    stages = [line.split()[-1] for line in lines if line.startswith("FROM")]
    assert stages == ["interpreter", "dependencies", "run"]
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert not [line for line in lines if re.match(r"(ARG|ENV).*(KEY|PASSWORD|SECRET|TOKEN)", line)]
    # Nothing is sent to the builder but what is named.
    assert (ROOT / ".dockerignore").read_text().startswith("*\n!")


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
    # The validator does not know `<<`, which PyYAML resolves.
    return PyCompose.from_json(json.dumps(yaml.safe_load(_filled_in(text))))


def _filled_in(text: str) -> str:
    """The file with its defaults, and `given` for what has to be given."""
    innermost = re.compile(r"\$\{\w+:?([-?])([^${}]*)\}")
    while innermost.search(text):
        text = innermost.sub(lambda found: found[2] if found[1] == "-" else "given", text)
    assert "${" not in text
    return text


def _seconds(told: str) -> int:
    return int(told[:-1]) * {"s": 1, "m": 60}[told[-1]]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
