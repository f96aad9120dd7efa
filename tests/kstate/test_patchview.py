"""Folding the toggles, and `kfuzz patch` against its snapshots.

tests/snapshots/patches/*.diff is what `kfuzz patch` prints for everything that is modelled. Line
numbers are not compared, so that work elsewhere in a file breaks nothing; a missing file fails.
To write them all anew, and then to read the difference:

    .venv/bin/python tests/kstate/test_patchview.py && git diff tests/snapshots
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kstate.patches import P02, P07, P10, TABLE, Patch, SpecError, parse_spec
from kstate.patchview import fold, sources, toggle_of, view

ROOT = Path(__file__).parent.parent.parent
SNAPSHOTS = ROOT / "tests" / "snapshots" / "patches"
ALL = frozenset(patch.toggle for patch in TABLE)
SHOWN = [patch for patch in TABLE if patch.modelled or not patch.behaviour]
NUMBERS = re.compile(r"@@ -\S+ \+\S+ @@")


def snapshot(patch: Patch) -> Path:
    return SNAPSHOTS / f"{patch.name.replace(':', '-')}.diff"


@pytest.mark.parametrize("patch", SHOWN, ids=lambda patch: patch.name)
def test_a_patch_prints_its_snapshot(patch: Patch) -> None:
    wanted = snapshot(patch).read_text()
    assert NUMBERS.sub("@@", str(view(patch.name))) == NUMBERS.sub("@@", wanted)


def test_there_is_no_snapshot_of_something_else() -> None:
    assert {path.name for path in SNAPSHOTS.iterdir()} == {snapshot(p).name for p in SHOWN}


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_every_file_compiles_with_every_toggle_on_or_off(path: Path) -> None:
    text = path.read_text()
    used = {toggle[0] for node in ast.walk(ast.parse(text)) if (toggle := toggle_of(node))}
    assert used
    for toggle in sorted(used):
        for toggles in ({toggle}, ALL - {toggle}, set(), ALL):
            folded = fold(text, frozenset(toggles))
            compile(folded, str(path), "exec")
            assert " in k.patches" not in folded


def test_nothing_but_the_toggles_changes() -> None:
    """Every line of the folded text is a line of ours, but for its indentation, in our order; and
    what stands in no toggle is all there."""
    for path in sources():
        ours = path.read_text().splitlines()
        for spec in ("v4.3", "v4.4"):
            left = iter(line.strip() for line in ours)
            for line in fold(path.read_text(), parse_spec(spec).toggles).splitlines():
                assert line.strip() == "pass" or line.strip() in left, line


@pytest.mark.parametrize(
    ("toggles", "folded"),
    [
        (set(), "def f(k):\n    # before\n    old(  # why\n        1\n    )\n    return 0\n"),
        (
            {P02},
            'def f(k):\n    # before\n    new("""a\n            b""")\n    # below new\n\n'
            "    return 0\n",
        ),
        (
            {P02, P07},
            'def f(k):\n    # before\n    new("""a\n            b""")\n    more()\n'
            "    # below new\n\n    return 0\n",
        ),
    ],
)
def test_comments_strings_and_nested_toggles_fold(toggles: set[str], folded: str) -> None:
    text = (
        "def f(k):\n"
        "    # before\n"
        "    if P02 in k.patches:\n"
        '        new("""a\n'
        '            b""")\n'
        "        if P07 in k.patches:\n"
        "            more()\n"
        "        # below new\n"
        "\n"
        "    else:\n"
        "        old(  # why\n"
        "            1\n"
        "        )\n"
        "    return 0\n"
    )
    assert fold(text, frozenset(toggles)) == folded


def test_a_block_that_loses_all_keeps_a_pass_and_blank_lines_do_not_pile_up() -> None:
    text = (
        "def f(k):\n"
        "    a()\n"
        "\n"
        "    if P10 in k.patches:\n"
        "        b()\n"
        "\n"
        "    if c:\n"
        "        if P10 in k.patches:\n"
        "            d()\n"
        "            # d only\n"
        "    else:\n"
        "        e()\n"
    )
    off = "def f(k):\n    a()\n\n    if c:\n        pass\n    else:\n        e()\n"
    assert fold(text, frozenset()) == off
    on = (
        "def f(k):\n    a()\n\n    b()\n\n    if c:\n        d()\n        # d only\n"
        "    else:\n        e()\n"
    )
    assert fold(text, frozenset({P10})) == on


def test_a_toggle_of_ones_own_folds_too() -> None:
    text = 'def f(k):\n    if "x:mine" in k.patches:\n        a()\n    b()\n'
    assert fold(text, frozenset()) == "def f(k):\n    b()\n"
    assert fold(text, frozenset({"x:mine"})) == "def f(k):\n    a()\n    b()\n"


def test_the_series_in_order_and_everything_else_by_itself() -> None:
    p10 = view("P10")
    assert "P09" in str(p10.before)
    assert "P11" not in str(p10.after)
    assert [file.file for file in p10.files] == ["kstate/mm/rmap.py"]
    assert p10.files[0].functions == ("replace_pte",)
    assert str(view("e6c509f85455").after) == "v4.4"
    assert str(view("8bdd63809160").after) == "v4.3"
    assert str(view("P10", "v4.3").before) == "v4.3"
    assert not view("P01").files
    assert "text only" in str(view("P05"))
    with pytest.raises(SpecError, match="no line of kstate asks for"):
        view("x:mine")
    with pytest.raises(SpecError, match="unknown patch"):
        view("P13")
    with pytest.raises(SpecError, match="requires"):
        view("P08", "v4.3")


HASHES = """
from random import Random
from fuzz.corpus import program_files, races_folder, read_program
from fuzz.prog.generate import generate
from fuzz.run import run
from fuzz.schedulers import RandomWalk
from kstate.machine import Choices
for path in program_files(races_folder()):
    print(path.name, run(read_program(path), SPEC).trace_hash)
for number in range(60):
    rng = Random(f"folded {number}")
    program = generate(rng, SPEC)
    choices = Choices([rng.getrandbits(16) for _ in range(300)])
    print(number, run(program, SPEC, RandomWalk(3), choices).trace_hash)
"""


@pytest.mark.parametrize("spec", ["v4.3", "v4.3+P02+P03+P06+P07", "v4.4"])
def test_a_folded_kernel_runs_as_the_one_with_toggles(spec: str, tmp_path: Path) -> None:
    """Same events, same order: the fold means what the toggles mean."""
    for package in ("kstate", "fuzz", "corpus"):
        shutil.copytree(ROOT / package, tmp_path / package)
    folded = []
    for path in sources():
        text = fold(path.read_text(), parse_spec(spec).toggles)
        (tmp_path / path.relative_to(ROOT)).write_text(text)
        folded.append(text != path.read_text())
    assert all(folded)
    printed = [
        subprocess.run(
            [sys.executable, "-c", f"SPEC = {spec!r}\n{HASHES}"],
            cwd=root,
            env={"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for root in (ROOT, tmp_path)
    ]
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) > 60


if __name__ == "__main__":
    for old in SNAPSHOTS.glob("*.diff"):
        old.unlink()
    for shown in SHOWN:
        snapshot(shown).write_text(str(view(shown.name)))
