"""MODEL.md says which of the kernel's checks nothing reaches: so it is, as far as runs can tell."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

import kstate
from fuzz.corpus import program_files, races_folder, read_program
from fuzz.findings import FINDINGS
from fuzz.oracles import ALL_ORACLES
from fuzz.prog.generate import generate
from fuzz.run import run
from fuzz.sample import sampled_choices
from fuzz.schedulers import make_scheduler
from kstate.patches import CLEAN

MODEL = (Path(kstate.__file__).parent / "MODEL.md").read_text()
PART = MODEL[MODEL.index("## Checks that nothing reaches") :].split("\n## ")[0]
UNREACHED = set(re.findall(r"`([\w-]+)`", PART))
# Shown by runs, though no race file is about them.
REACHED = """bad-page-state-flags bug-hugepage-anon-rmap-unlocked bug-mlock-vma-page-unlocked
bug-page-swap-info bug-set-page-dirty-mapping context-error deadlock sleeping-in-atomic step-limit
vm-bug-anon-rmap-unlocked vm-bug-ksm-migrate-unlocked vm-bug-lru-cache-add-lru
vm-bug-putback-inactive-pages vm-bug-putback-lru-page vm-bug-replace-page-unlocked
vm-bug-rmap-walk-unlocked vm-bug-shrink-page-list-kept warn-delete-dirty-page
warn-dirty-not-uptodate"""
KERNELS = ("v4.3", "v4.4", "v4.3+mutant:7b", "v4.3-8bdd63809160", "v4.4-48ec833b7851", CLEAN)
PROGRAMS = 150


def test_every_check_is_expected_of_a_race_or_said_to_be_out_of_reach() -> None:
    expected = {
        expect.id
        for path in program_files(races_folder())
        for expect in read_program(path).expects
        if not expect.absent
    }
    claims = {oracle.id for oracle in ALL_ORACLES}
    assert not UNREACHED & expected
    assert UNREACHED | set(REACHED.split()) | expected | claims >= set(FINDINGS)
    assert set(FINDINGS) >= UNREACHED


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_run_shows_what_is_out_of_reach(kernel: str) -> None:
    scheduler = make_scheduler("random_walk(run=8)")
    for number in range(PROGRAMS):
        program = generate(Random(f"checks {number}"), kernel)
        outcome = run(program, kernel, scheduler, sampled_choices("checks", number))
        assert not outcome.ids & UNREACHED, number
