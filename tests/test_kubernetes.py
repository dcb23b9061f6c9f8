"""The manifests for Kubernetes: what their schemas, Kustomize and the rest of the project say of them."""

import json
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from annotate import env, processes, settings

FOLDER = Path(__file__).resolve().parents[1] / "deploy/kubernetes"
FOLDERS = sorted(path.parent for path in FOLDER.glob("*/kustomization.yaml"))
FILES = sorted(set(FOLDER.glob("*/*.yaml")) - set(FOLDER.glob("*/kustomization.yaml")))
VERSIONS = ("1.30", "1.34", "1.37")
KUSTOMIZE = next(
    ([*found] for found in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(found[0])), []
)


def in_file(path: Path) -> list[dict]:
    """The objects of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def kustomization(folder: Path) -> dict:
    """What a folder is made of."""
    return yaml.safe_load((folder / "kustomization.yaml").read_text())


def key(one: dict) -> tuple[str, str]:
    """What an object is called."""
    return one["kind"], one["metadata"]["name"]


def objects_of(folder: Path) -> list[dict]:
    """All that a folder brings, before it is changed by anything."""
    found, made_of = [], kustomization(folder)
    for name in [*made_of.get("resources", []), *made_of.get("components", [])]:
        path = folder / name
        found += objects_of(path) if path.is_dir() else in_file(path)
    return found


OBJECTS = [one for path in FILES for one in in_file(path)]
TEMPLATES = {key(one): one["spec"]["template"] for one in OBJECTS if "template" in one.get("spec", {})}
PODS = {name: template["spec"] for name, template in TEMPLATES.items()}
OURS = {
    name: pod
    for (_, name), pod in PODS.items()
    if any(container["image"].startswith("bothsides") for container in pod["containers"])
}
CONTAINERS = [one for pod in PODS.values() for one in [*pod.get("initContainers", []), *pod["containers"]]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_object_keeps_to_its_schema(path, version):
    for one in in_file(path):
        kubernetes_validate.validate(one, version, strict=True)


def test_a_misspelt_field_would_be_noticed():
    (wrong,) = [one for one in OBJECTS if key(one) == ("Deployment", "beat")]
    wrong = json.loads(json.dumps(wrong).replace("livenessProbe", "lifenessProbe"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_every_file_is_named_and_every_named_file_is_there():
    named = set()
    for folder in FOLDERS:
        for name in [*kustomization(folder).get("resources", []), *kustomization(folder).get("components", [])]:
            path = (folder / name).resolve()
            named.add(path)
            assert path.is_file() or (path / "kustomization.yaml").is_file(), f"{folder.name}: {name}"
        for made in kustomization(folder).get("configMapGenerator", []):
            assert all((folder / name).is_file() for name in made.get("envs", []))
    assert set(FILES) <= named


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_changed_is_there(folder):
    there = {key(one) for one in objects_of(folder)}
    assert len(there) == len(objects_of(folder)), "two of one name"
    for patch in kustomization(folder).get("patches", []):
        assert (patch["target"]["kind"], patch["target"]["name"]) in there
    names = {name for _, name in there}
    assert {one["name"] for one in kustomization(folder).get("replicas", [])} <= names
    images = {one["image"] for one in CONTAINERS}
    assert {one["name"] for one in kustomization(folder).get("images", [])} <= images


@pytest.mark.skipif(not KUSTOMIZE, reason="neither kustomize nor kubectl is here")
@pytest.mark.parametrize("name", ["base", "gpu", "example"])
def test_kustomize_builds_what_the_schemas_take(name):
    done = subprocess.run([*KUSTOMIZE, FOLDER / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    for one in built:
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "bothsides"
    workers = {one["metadata"]["name"] for one in built} & {"worker", "worker-gpu"}
    assert workers == ({"worker"} if name == "base" else {"worker-gpu"})
    if name == "example":
        assert "bothsides.example.org" not in done.stdout
        assert "image: bothsides" not in done.stdout


def test_settings_that_the_manifests_give_exist():
    given = [line.partition("=")[0] for line in (FOLDER / "base/settings.env").read_text().split()]
    for folder in FOLDERS:
        for made in kustomization(folder).get("configMapGenerator", []):
            given += [one.partition("=")[0] for one in made.get("literals", [])]
    for pod in OURS.values():
        given += [one["name"] for container in pod["containers"] for one in container.get("env", [])]
    assert set(given) <= set(env.variables)
    assert "SITE_URL" in given


def test_secrets_are_only_referred_to():
    assert not [one for one in OBJECTS if one["kind"] == "Secret"]
    secret = {name for name, variable in env.variables.items() if "_FILE: a file that holds it" in variable.meaning}
    assert {"SECRET_KEY", "DATABASE_URL", "REDIS_URL"} <= secret
    assert not [name for name in secret if f"{name}=" in (FOLDER / "base/settings.env").read_text()]
    for container in CONTAINERS:
        for one in container.get("env", []):
            assert "value" not in one or one["name"] not in secret | {"VLLM_API_KEY", "HF_TOKEN"}


@pytest.mark.parametrize(
    ("name", "arguments", "probe"),
    [
        ("web", processes.WEB, None),
        ("worker", processes.WORKER, "worker"),
        ("worker-gpu", processes.WORKER, "worker"),
        ("training", processes.WORKER, "worker"),
        ("jobs", processes.WORKER, "worker"),
        ("beat", processes.BEAT, "beat"),
    ],
)
def test_they_run_the_commands_that_up_runs(name, arguments, probe):
    (container,) = OURS[name]["containers"]
    queues = arguments.index("--queues") + 1 if "--queues" in arguments else -1
    for number, argument in enumerate(arguments):
        if number != queues:
            assert container["args"][number + 1] == argument
    if probe:
        assert container["livenessProbe"]["exec"]["command"] == ["python", "-m", "annotate.probe", probe]
    else:
        # The broker, the database and the workers are no reason to take web processes away.
        for look in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[look]["httpGet"]["path"] == "/livez"
            assert container[look]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


@pytest.mark.skipif(not KUSTOMIZE, reason="neither kustomize nor kubectl is here")
@pytest.mark.parametrize("name", ["base", "gpu"])
def test_each_queue_is_listened_to(name):
    built = subprocess.run([*KUSTOMIZE, FOLDER / name], capture_output=True, text=True, check=True).stdout
    found = {}
    for one in yaml.safe_load_all(built):
        args = one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [{}])[0].get("args", [])
        if "--queues" in args:
            found[one["metadata"]["name"]] = args[args.index("--queues") + 1]
    everything = processes.WORKER[processes.WORKER.index("--queues") + 1]
    if name == "base":
        assert found == {"worker": "bothsides", "jobs": everything}
    else:
        assert found == {"worker-gpu": "bothsides", "jobs": "bothsides,jobs", "training": "bothsides,training"}
        assert {*",".join(found.values()).split(",")} == {*everything.split(",")}


def test_what_samples_for_none_says_so():
    for name in ("jobs", "training"):
        (container,) = OURS[name]["containers"]
        assert [one["name"] for one in container["env"]] == ["WORKER_POLICIES"]
    for name in ("worker", "worker-gpu"):
        assert "env" not in OURS[name]["containers"][0]


def test_a_worker_has_the_time_to_give_back_what_it_holds():
    told = dict(line.split("=", 1) for line in (FOLDER / "base/settings.env").read_text().split())
    drain = float(told.get("WORKER_DRAIN_SECONDS", settings.WORKER_DRAIN_SECONDS))
    for name in ("worker", "worker-gpu", "training", "jobs"):
        assert OURS[name]["terminationGracePeriodSeconds"] > drain + 10 + 10


def test_nothing_has_a_right_that_it_does_not_need():
    assert OURS.keys() == {"migrate", "web", "worker", "worker-gpu", "training", "jobs", "beat"}
    for name, pod in PODS.items():
        assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    for container in CONTAINERS:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights.get("readOnlyRootFilesystem") or container["name"] == "vllm"
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]
    dockerfile = (FOLDER.parents[1] / "Dockerfile").read_text()
    for pod in OURS.values():
        context = pod["securityContext"]
        assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in dockerfile
        mounted = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
        assert {"/data", "/tmp"} <= mounted  # noqa: S108 (of the container)


def test_new_processes_wait_for_the_migration():
    for name in ("web", "worker", "worker-gpu", "training", "jobs"):
        (first,) = OURS[name]["initContainers"]
        assert first["command"][-3:] == ["manage.py", "migrate", "--check"]
        assert first["image"] == OURS[name]["containers"][0]["image"]


def test_one_process_has_one_gpu():
    for name in ("worker-gpu", "training"):
        (container,) = OURS[name]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_what_was_trained_is_seen_by_who_samples():
    for name in ("worker-gpu", "training"):
        (mounted,) = [one for one in OURS[name]["containers"][0]["volumeMounts"] if one["name"] == "models"]
        assert mounted["mountPath"] == "/data/models"
        (volume,) = [one for one in OURS[name]["volumes"] if one["name"] == "models"]
        claim = ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        assert claim in {key(one) for one in OBJECTS}


def test_there_is_one_beat():
    (beat,) = [one for one in OBJECTS if key(one) == ("Deployment", "beat")]
    assert (beat["spec"]["replicas"], beat["spec"]["strategy"]["type"]) == (1, "Recreate")


def test_what_is_selected_is_there():
    component = "app.kubernetes.io/component"
    labels = {template["metadata"]["labels"][component] for template in TEMPLATES.values()}
    for one in OBJECTS:
        spec = one.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            wanted = selector.get("matchLabels", selector)[component]
            assert wanted in labels, key(one)
        if one["kind"] == "HorizontalPodAutoscaler":
            target = one["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in PODS
        if one["kind"] == "StatefulSet":
            assert ("Service", one["spec"]["serviceName"]) in {key(other) for other in OBJECTS}
