"""The logic of the scripts, run by node where it is installed; browsers test them in any case."""

import shutil
import subprocess
from pathlib import Path

import pytest

import trainers_ui

ELEMENTS = Path(trainers_ui.__file__).parent / "static" / "trainers_ui" / "elements"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="node is not installed; the browser tests cover the scripts")
@pytest.mark.parametrize("name", ["active-time", "order", "reply", "typed"])
def test_logic(name):
    test = Path(__file__).parent / "scripts" / f"{name}.test.mjs"
    done = subprocess.run(
        [NODE, "--test", str(test)], env={"ELEMENTS": str(ELEMENTS)}, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout
    assert "# tests 0" not in done.stdout
