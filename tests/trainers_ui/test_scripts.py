"""The logic of the scripts, run by node: the installed one, else the one that comes with Playwright."""

import shutil
import subprocess
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

import trainers_ui

ELEMENTS = Path(trainers_ui.__file__).parent / "static" / "trainers_ui" / "elements"
NODE = shutil.which("node") or str(compute_driver_executable()[0])


@pytest.mark.parametrize("name", ["active-time", "manuscript", "offers", "order", "reply", "typed"])
def test_logic(name):
    test = Path(__file__).parent / "scripts" / f"{name}.test.mjs"
    done = subprocess.run(
        [NODE, "--test", str(test)], env={"ELEMENTS": str(ELEMENTS)}, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout
    assert "# tests 0" not in done.stdout
