"""How often does a scheduler hit? Runs of one program under one sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from fuzz.prog.prog import Program
from fuzz.run import run
from fuzz.schedulers import make_scheduler
from kstate.machine import Choices
from kstate.patches import parse_spec

DRAWS_BITS = 16


@dataclass
class Sample:
    """runs made; hits: runs that show a finding that counts; findings: runs by id; first_hit: run
    number from 1, None without a hit."""

    kernel: str
    scheduler: str
    runs: int
    hits: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    first_hit: int | None = None
    steps_per_run: float = 0.0


def sample(
    program: Program,
    kernel: str | None,
    scheduler: str,
    runs_count: int,
    seed: int | str,
    only: frozenset[str] = frozenset(),
    ignore: frozenset[str] = frozenset(),
) -> Sample:
    """Run a program `runs_count` times. scheduler: an expanded spelling."""
    bare = program.bare()
    result = Sample(parse_spec(kernel or program.kernel).text, scheduler, runs_count)
    steps = 0
    for number in range(1, runs_count + 1):
        rng = Random(f"kfuzz sample {seed} {number}")
        choices = Choices(more=lambda rng=rng: rng.getrandbits(DRAWS_BITS))  # type: ignore[misc]
        outcome = run(bare, kernel, make_scheduler(scheduler), choices)
        steps += outcome.steps
        ids = {id for id in outcome.ids if id not in ignore and (not only or id in only)}
        for id in ids:
            result.findings[id] = result.findings.get(id, 0) + 1
        if ids:
            result.hits += 1
            result.first_hit = result.first_hit or number
    result.steps_per_run = round(steps / runs_count, 1)
    return result
