"""What a dataset version says about itself: its counts, its manifest and its card. No time of day is in them,
so that the same query over the same record gives the same bytes."""

import hashlib
import json
import tomllib
from importlib import metadata

from django.conf import settings

from annotate.datasets import shapes
from annotate.models import Iteration, Policy, Project

SCHEMA_VERSION = 1
RANK_ORDER = "0=best"
SPLITS = shapes.SPLITS
MANIFEST, CARD = "manifest.json", "README.md"


def make(*, project: Project, what: str, format: str, says: dict, filters: dict, tally, files: dict) -> dict:
    """The manifest of written files, given as `{name: {"sha256", "bytes", "rows"}}`; `says` is what holds of all."""
    return {
        "schema_version": SCHEMA_VERSION,
        "bothsides_version": code_version(),
        "project": project.slug,
        "what": what,
        "format": format,
        **says,
        "filters": filters,
        "counts": tally.as_json(),
        "iterations": [
            {
                "number": iteration.number,
                "k": iteration.k,
                "overlap": iteration.overlap,
                "guidelines": iteration.guidelines.number if iteration.guidelines else None,
                "form_version": iteration.form_version,
            }
            for iteration in Iteration.objects.filter(project=project, number__in=tally.iterations)
            .select_related("guidelines")
            .order_by("number")
        ],
        "policies": [
            {"name": policy.name, "engine": policy.engine, "location": policy.location, "revision": policy.revision}
            for policy in Policy.objects.filter(name__in=tally.policies).order_by("name")
        ],
        "digest": digest_of(files),
        "files": files,
    }


def digest_of(files: dict[str, dict]) -> str:
    """The digest of a dataset version: what `sha256sum *.jsonl | sha256sum` prints in its folder."""
    listing = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files) if name.endswith(".jsonl"))
    return hashlib.sha256(listing.encode()).hexdigest()


def as_bytes(manifest: dict) -> bytes:
    """The manifest as it stands in its file."""
    return (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode()


def code_version() -> str:
    """The version of this program: of the installed package, else of the checkout."""
    try:
        return metadata.version("bothsides")
    except metadata.PackageNotFoundError:
        return tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]["version"]


def card(*, title: str, about: str, format: str, splits: list[str]) -> bytes:
    """The dataset card: with it `datasets.load_dataset(FOLDER)` finds the splits and knows every type.

    Without it a column that is null or empty in all of one split would have another type there.
    """
    files = [{"split": name, "path": f"{name}.jsonl"} for name in splits]
    head = {
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": shapes.features(shapes.SHAPES[format])},
    }
    # JSON is YAML too.
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    return (
        f"---\n{yaml}\n---\n\n# {title}\n\n"
        f"Format `{format}`: one JSON object a line. {about}\n"
        f"Counts, filters and digests are in `{MANIFEST}`.\n\n"
        '```python\nfrom datasets import load_dataset\n\ndataset = load_dataset("path/to/this/folder")\n```\n'
    ).encode()
