"""Which locks are taken under which, over many runs: `kfuzz locks`, and an answer to questions
such as "is mlock_vma_page safe under the pte lock?"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

from fuzz.callchain import CallChains
from fuzz.locklog import ACTIONS, LockLog
from fuzz.oracles.lockorder import LockGraph, documented, nesting_of
from fuzz.prog.generate import generate
from fuzz.prog.prog import Program
from fuzz.run import run, scheduler_of
from fuzz.schedulers import RandomWalk
from kstate.machine import Choices, Report, Scheduler

RUN_LENGTH = 5  # of the random walk that random programs run under
DRAWS_BITS = 16

Planned = tuple[Program, Scheduler, Choices]


@dataclass(frozen=True, order=True)
class Taking:
    """`taken` was taken, or waited for, with `held` held, at the point `at`. tries: by a trylock,
    which waits for nobody. rule: where both are of one class, what lets them nest."""

    held: str
    taken: str
    at: str
    irqs_off: bool
    tries: bool
    rule: str = ""

    @property
    def order(self) -> str:
        """What the documented order says of it, in words."""
        if documented(self.held, self.taken):
            return "in documented order"
        if self.rule:
            return f"known nesting: {self.rule}"
        if self.tries:
            return "a trylock: no order needed"
        if documented(self.taken, self.held):
            return f"AGAINST the documented order {documented(self.taken, self.held)}"
        return "not in the documented order"


@dataclass
class Survey:
    """runs: looked at. takings: what was asked for, with how often. classes, functions: of all
    locks that were held, and of all that took one. violations: of all runs together, whatever was
    asked for."""

    runs: int = 0
    classes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    takings: dict[Taking, int] = field(default_factory=dict)
    violations: list[Report] = field(default_factory=list)


def survey(
    planned: Iterable[Planned],
    kernel: str | None = None,
    *,
    under: str | None = None,
    within: str | None = None,
) -> Survey:
    """Run programs and gather what they take under what.

    Args:
        kernel: by default each program's own.
        under: only what is taken while a lock of this class is held.
        within: only what is taken in this function, or in one it calls.
    """
    result, graph = Survey(), LockGraph()
    for program, scheduler, choices in planned:
        chains = CallChains(lambda primitive: primitive.name in ACTIONS)
        outcome = run(program, kernel, scheduler, choices, oracles=(), observers=(chains,))
        result.runs += 1
        graph.add(outcome.machine)
        locks = LockLog()
        for event in outcome.machine.events():
            wanted = locks.see(event)
            if wanted is None or not (wanted.action.waits or wanted.action.tries):
                continue
            chain = chains.by_log_at.get(event.log_at, ())
            result.classes.add(wanted.name)
            result.functions.update(chain)
            if within is not None and within not in chain:
                continue
            for held in wanted.held:
                if under is None or held.name == under:
                    nesting = nesting_of(
                        wanted.name, held.at.name, wanted.at.name, tries=wanted.action.tries
                    )
                    taking = Taking(
                        held.name,
                        wanted.name,
                        wanted.at.name,
                        wanted.irqs_off,
                        wanted.action.tries,
                        nesting.rule if nesting and held.name == wanted.name else "",
                    )
                    result.takings[taking] = result.takings.get(taking, 0) + 1
    result.violations = list(graph.violations())
    return result


def as_they_say(programs: Iterable[Program]) -> Iterator[Planned]:
    """Programs with the schedule they carry."""
    for program in programs:
        yield (program, *scheduler_of(program))


def random_runs(count: int, seed: int | str, kernel: str) -> Iterator[Planned]:
    """Random programs under a random walk; the same for one seed."""
    for number in range(count):
        rng = Random(f"locks {seed} {number}")
        program = generate(rng, kernel)
        draws = Random(f"locks {seed} {number} schedule")
        yield program, RandomWalk(RUN_LENGTH), Choices(more=_drawing(draws))


def _drawing(rng: Random) -> Callable[[], int]:
    return lambda: rng.getrandbits(DRAWS_BITS)
