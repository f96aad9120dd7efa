"""Compiled and pure kstate give the same runs. `make compiled`; no part of `make test`, since the
C compiler alone takes more than a minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from fuzz.corpus import program_files, read_program
from fuzz.prog.generate import generate
from fuzz.report.diagram import diagram
from fuzz.run import run
from fuzz.schedulers import Pct, RandomWalk
from kstate.machine import Choices, points_met
from kstate.machine.compiled import COMPILED
from kstate.patches import CLEAN

ROOT = Path(__file__).parent.parent
PROGRAMS = 200
DRAWN = 20  # of the race files, every so many is drawn too
KERNELS = ("v4.3", "v4.4", CLEAN)


def runs() -> Iterator[tuple[str, str]]:
    """What is run, and what it shows: trace hash and findings of races and of random programs."""
    for number, file in enumerate(program_files(ROOT / "corpus" / "races")):
        program = read_program(file)
        for kernel in dict.fromkeys(expect.kernel for expect in program.expects):
            outcome = run(program, kernel)
            yield f"{file.name} {kernel}", f"{outcome.trace_hash} {outcome.findings}"
        if number % DRAWN == 0:
            yield f"{file.name} drawn", diagram(program)[0]
    for number in range(PROGRAMS):
        rng = Random(f"compiled {number}")
        program = generate(rng, KERNELS[number % len(KERNELS)])
        scheduler = RandomWalk(1 + number % 7) if number % 2 else Pct(1 + number % 4, 300)
        choices = Choices([rng.getrandbits(16) for _ in range(400)])
        outcome = run(program, None, scheduler, choices)
        yield f"program {number}", f"{outcome.trace_hash} {outcome.findings}"
    for point in points_met():
        # In a comprehension it would depend on the version of Python, and on being compiled.
        assert "<listcomp>" not in point.name
        assert "<genexpr>" not in point.name
        yield f"point {point}", str(point.number)


def shown(folder: Path | None) -> dict[str, str]:
    """The runs of the kstate in a folder, of the installed one by default."""
    environment = {**os.environ, "PYTHONPATH": str(folder)} if folder else {**os.environ}
    result = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=True
    )
    told: dict[str, str] = json.loads(result.stdout)
    return told


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, ROOT],
        env={**os.environ, "KSTATE_COMPILE": "1"},
        check=True,
    )
    return folder


def test_compiled_and_pure_kstate_give_the_same_runs(compiled: Path) -> None:
    pure, fast = shown(None), shown(compiled)
    assert (pure.pop("compiled"), fast.pop("compiled")) == ("False", "True")
    assert len(pure) > PROGRAMS
    assert fast == pure


if __name__ == "__main__":
    json.dump({"compiled": str(COMPILED), **dict(runs())}, sys.stdout)
