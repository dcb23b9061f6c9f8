"""The import contracts hold, and each of them notices what it forbids."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def check(folder: Path) -> subprocess.CompletedProcess:
    """Runs import-linter on the packages in a folder."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_import_contracts_hold():
    checked = check(ROOT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("trainers_ui/apps.py", "from worker import apps", "Pages and workers never import each other"),
        ("worker/apps.py", "from trainers_ui import apps", "Pages and workers never import each other"),
        ("annotate/people.py", "from worker import apps", "The record knows neither pages nor workers"),
        ("annotate/people.py", "import torch", "Models are run and trained in workers only"),
        ("trainers_ui/apps.py", "from celery import Celery", "Celery is behind the bell"),
        ("trainers_ui/apps.py", "from annotate.datasets import check", "Pages call verbs and access"),
        ("annotate/access.py", "from annotate import people", "Layers of the record"),
        ("annotate/assignments.py", "from annotate.datasets import check", "Layers of the record"),
        ("annotate/admin/people.py", "from annotate.api import urls", "Layers of the record"),
        ("annotate/unheard_of.py", "", "Layers of the record"),
    ],
)
def test_a_contract_notices(tmp_path, file, line, contract):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("annotate", "trainers_ui", "worker"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("static", "__pycache__"))
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    checked = check(tmp_path)
    assert checked.returncode == 1, checked.stdout
    assert f"{contract} BROKEN" in checked.stdout
