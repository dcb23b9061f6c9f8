"""What a dataset version says about itself: its counts, its manifest and its card. No time of day is in them,
so that the same query over the same record gives the same bytes."""

import hashlib
import json
import subprocess
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata

from django.conf import settings
from django.db.models import Prefetch

from annotate.datasets import shapes
from annotate.models import Iteration, IterationPolicy, Policy, Project

SCHEMA_VERSION = 4
RANK_ORDER = "0=best"
SPLITS = shapes.SPLITS
MANIFEST, CARD, SCHEMA = "manifest.json", "README.md", "schema.json"


def make(
    *,
    project: Project,
    what: str,
    format: str,
    says: dict,
    filters: dict,
    tally,
    held_out: int,
    personal_data: dict | None,
    parents: list[dict],
    files_kind: str,
    files: dict[str, dict],
) -> dict:
    """The manifest of written files, given as `{name: {"sha256", "bytes", "rows"}}`; `says` is what holds of all."""
    counts = tally.as_json()
    counts["left_out"] = counts.get("left_out", {}) | {shapes.HELD_OUT: held_out}
    rounds = _rounds(project, tally.iterations)
    return {
        "schema_version": SCHEMA_VERSION,
        "bothsides_version": code_version(),
        "bothsides_commit": code_commit(),
        "project": project.slug,
        "what": what,
        "format": format,
        **says,
        "filters": filters,
        "counts": counts,
        "personal_data": personal_data,
        "parents": parents,
        "guidelines": sorted({one["guidelines"] for one in rounds} - {None}),
        "iterations": rounds,
        "policies": [
            {"name": policy.name, "engine": policy.engine, "location": policy.location, "revision": policy.revision}
            | ({"served_as": policy.served_as} if policy.served_as else {})
            for policy in Policy.objects.filter(name__in=tally.policies).order_by("name")
        ],
        "digest": digest_of(files),
        "files_kind": files_kind,
        "files": files,
    }


def _rounds(project: Project, numbers: Iterable[int | None]) -> list[dict]:
    """What holds of these rounds. What was imported is of none."""
    weights = IterationPolicy.objects.select_related("policy").order_by("id")
    shared = Prefetch("iterationpolicy_set", weights, "shared")
    found = Iteration.objects.filter(project=project, number__in=[number for number in numbers if number is not None])
    return [
        {
            "number": iteration.number,
            "k": iteration.k,
            "overlap": iteration.overlap,
            "guidelines": iteration.guidelines.number if iteration.guidelines else None,
            "form_version": iteration.form_version,
            "keeps_original": iteration.keeps_original,
            "policies": [{"name": one.policy.name, "weight": one.weight} for one in iteration.shared],
        }
        for iteration in found.select_related("guidelines").prefetch_related(shared).order_by("number")
    ]


def digest_of(files: dict[str, dict]) -> str:
    """The digest of a dataset version: what `sha256sum *.jsonl | sha256sum` prints in its folder, or the like of its
    kind of files."""
    listing = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files) if "rows" in files[name])
    return hashlib.sha256(listing.encode()).hexdigest()


def as_bytes(manifest: dict) -> bytes:
    """The manifest as it stands in its file."""
    return (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode()


@cache
def code_version() -> str:
    """The version of this program: of the installed package, else of the checkout."""
    try:
        return metadata.version("bothsides")
    except metadata.PackageNotFoundError:
        return tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]["version"]


@cache
def code_commit() -> str | None:
    """The commit of the checkout that this program runs from; None where it is none."""
    if not (settings.BASE_DIR / ".git").exists():
        return None
    command = ["git", "-C", str(settings.BASE_DIR), "rev-parse", "HEAD"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def card(*, title: str, about: str, format: str, shape: dict, splits: dict[str, list[str]]) -> bytes:
    """The dataset card: with it `datasets.load_dataset(FOLDER)` finds the splits and knows every type.

    `splits` are the names of the files by split. Without the types a column that is null or empty in all of one split
    would have another type there. What is no table is not loaded so, and has no types.
    """
    table = shapes.is_table(shape)
    files = [{"split": split, "path": _pattern(split, names)} for split, names in splits.items()]
    head = {"configs": [{"config_name": "default", "data_files": files}]}
    if table:
        head["dataset_info"] = {"features": shapes.features(shape)}
    # JSON is YAML too.
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    how = '\n```python\nfrom datasets import load_dataset\n\ndataset = load_dataset("path/to/this/folder")\n```\n'
    return (
        f"---\n{yaml}\n---\n\n# {title}\n\n"
        f"Format `{format}`: one JSON object a line, or one row in Parquet; its schema is in `{SCHEMA}`. {about}\n"
        f"Counts, filters and digests are in `{MANIFEST}`.\n"
    ).encode() + (how.encode() if table else b"")


def _pattern(split: str, names: list[str]) -> str:
    """What finds the files of a split: the name of the only one, or a pattern."""
    return names[0] if len(names) == 1 else f"{split}-*{names[0].removeprefix(f'{split}-00000')}"
