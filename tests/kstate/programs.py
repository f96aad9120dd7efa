"""Programs for tests of the model, put together and run."""

from __future__ import annotations

from collections.abc import Sequence

from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.patches import CLEAN

MACHINE = "cpus=2 zones=2 pages=16 pool=1"


def clean_run(
    init: Sequence[str] = (),
    cpu0: Sequence[str] = (),
    cpu1: Sequence[str] = (),
    schedule: Sequence[str] = (),
    faults: Sequence[str] = (),
    *,
    kernel: str = CLEAN,
    machine: str = MACHINE,
) -> Outcome:
    """Run it: it must follow its schedule, and show nothing."""
    text = f"kfuzz 1\nkernel: {kernel}\nmachine: {machine}\n"
    sections = {"init": init, "cpu0": cpu0, "cpu1": cpu1, "faults": faults, "schedule": schedule}
    for name, lines in sections.items():
        if lines:
            text += f"{name}:\n" + "".join(f"  {line}\n" for line in lines)
    outcome = run(parse(text))
    assert outcome.findings == (), outcome.findings
    assert outcome.diverged is None, outcome.diverged
    return outcome
