"""How often does a scheduler hit? Runs of one program under one sampler, or under each.

A sample never passes: no hit in n runs bounds the probability of one, it does not make it 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from random import Random

from fuzz.oracles import and_slow
from fuzz.prog.prog import Program
from fuzz.run import profile
from fuzz.schedulers import SAMPLERS, expand, make_scheduler
from fuzz.subject import ProgramSubject, Subject
from kstate.machine import Choices
from kstate.patches import parse_spec

DRAWS_BITS = 16
PROGRESS_EVERY = 16
Z95 = 1.959964  # two-sided 95 % of the normal distribution
REPORT_RUNS = 100


@dataclass
class Sample:
    """runs made; hits: runs that show a finding that counts; findings: runs by id; first_hit: run
    number from 1, None without a hit; steps: of all runs."""

    kernel: str
    scheduler: str
    runs: int
    hits: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    first_hit: int | None = None
    steps: int = 0

    @property
    def steps_per_run(self) -> float:
        return round(self.steps / self.runs, 1)


def sample(
    program: Program | Subject,
    kernel: str | None,
    scheduler: str,
    runs_count: int,
    seed: int | str,
    only: frozenset[str] = frozenset(),
    ignore: frozenset[str] = frozenset(),
    *,
    progress: Callable[[int], None] | None = None,
) -> Sample:
    """Run a program `runs_count` times. scheduler: an expanded spelling. progress: told the number
    of runs now and then."""
    subject = program
    if isinstance(subject, Program):
        spec = parse_spec(kernel or subject.kernel).text
        subject = ProgramSubject(subject.bare(), spec, and_slow(only))
    result = Sample(subject.kernel_name, scheduler, runs_count)
    sampler = make_scheduler(scheduler)
    for number in range(1, runs_count + 1):
        ran = subject.run(sampler, sampled_choices(seed, number))
        result.steps += ran.machine.steps
        ids = {id for id in ran.findings if id not in ignore and (not only or id in only)}
        for id in sorted(ids):
            result.findings[id] = result.findings.get(id, 0) + 1
        if ids:
            result.hits += 1
            result.first_hit = result.first_hit or number
        ran.let_go()
        if progress is not None and number % PROGRESS_EVERY == 0:
            progress(number)
    return result


def sampled_choices(seed: int | str, number: int) -> Choices:
    """The draws of run `number` of a sample."""
    rng = Random(f"kfuzz sample {seed} {number}")
    return Choices(more=lambda: rng.getrandbits(DRAWS_BITS))


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """The 95 % interval of a probability that showed `hits` times in `runs` (Wilson, 1927).

    Unlike the textbook interval it is right for probabilities near 0, and never empty."""
    share = hits / runs
    square = Z95 * Z95
    middle = share + square / (2 * runs)
    spread = Z95 * sqrt(share * (1 - share) / runs + square / (4 * runs * runs))
    scale = 1 + square / runs
    low = 0.0 if hits == 0 else (middle - spread) / scale
    high = 1.0 if hits == runs else (middle + spread) / scale
    return low, high


def expected_runs(hits: int, runs: int) -> float | None:
    """Mean number of runs to the first hit; None where nothing was hit."""
    return runs / hits if hits else None


def in_words(hits: int, runs: int) -> str:
    """`3 of 100, 3.00 % (1.03 .. 8.45), a hit in 33 runs (12 .. 98)`."""
    low, high = wilson(hits, runs)
    if not hits:
        return f"0 of {runs}, < {100 * high:.2f} %, a hit in > {int(1 / high)} runs"
    return (
        f"{hits} of {runs}, {100 * hits / runs:.2f} % ({100 * low:.2f} .. {100 * high:.2f}), "
        f"a hit in {_runs(runs / hits)} runs ({_runs(1 / high)} .. {_runs(1 / low)})"
    )


def _runs(mean: float) -> str:
    return f"{mean:.1f}" if mean < 10 else f"{mean:.0f}"


def how_hard(
    program: Program,
    id: str,
    *,
    kernel: str | None = None,
    runs_count: int = REPORT_RUNS,
    seed: int | str = 0,
    stop: Callable[[], bool] = lambda: False,
) -> list[tuple[str, int, int]]:
    """How hard is a finding to hit: (sampler, hits, runs) for each sampler, or nothing if `stop`
    says so on the way. No clock, no chance: the same program gives the same rows."""
    bare = program.bare()
    known = profile(bare, kernel)
    rows = []
    for name in SAMPLERS:
        if stop():
            return []
        result = sample(bare, kernel, expand(name, lambda: known), runs_count, seed)
        rows.append((name, result.findings.get(id, 0), runs_count))
    return rows


def table(rows: Sequence[tuple[str, int, int]]) -> list[str]:
    """Rows of `how_hard` as text, a line each."""
    width = max((len(name) for name, _, _ in rows), default=0)
    return [f"{name:{width}}  {in_words(hits, runs)}" for name, hits, runs in rows]
