"""What the README says works, as it says it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_ten_lines_of_api_replay_a_race() -> None:
    code = next(block for block in python_blocks() if "from fuzz import" in block)
    assert len(code.strip().splitlines()) <= 10
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = result.stdout.splitlines()
    assert lines[0].startswith("v4.3 finding ['page0 is left PageMlocked")
    assert lines[2] == "v4.3+P02 clean []"
    assert lines[4] == "v4.4 clean []"


def test_a_patch_of_ones_own_is_a_toggle_at_one_line(tmp_path: Path) -> None:
    """Apply the README's patch to a copy of the sources, and run the README's two replays."""
    patch = next(block for block in python_blocks() if "x:mark-under-ptl" in block)
    for package in ("kstate", "fuzz", "corpus"):
        shutil.copytree(ROOT / package, tmp_path / package)
    target = tmp_path / "kstate" / "mm" / "rmap.py"
    before, function, after = target.read_text().partition("def try_to_unmap_one(")
    anchor = "        if vma.vm_flags & VM_LOCKED:\n"
    assert anchor in after
    target.write_text(before + function + after.replace(anchor, anchor + patch, 1))
    commands = re.findall(r"^kfuzz (replay \S+ --kernel \S+)$", README, re.MULTILINE)
    shown = []
    for command in commands:
        result = subprocess.run(
            [sys.executable, "-m", "fuzz", *command.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        shown.append(result.stdout.strip().partition(": ")[2])
    assert shown == ["mlocked-page-leak", "clean"]
