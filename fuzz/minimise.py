"""Making a reproducer smaller: operations, tasks, turns, machine size, to a fixed point.

Every candidate is run, and counts only if it shows the same finding. Turns are always those the
accepted run has executed, so a reproducer is followed to the letter. A candidate is never run
twice; the end is a local minimum: no single change that is tried here makes it smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fuzz.explore import schedules
from fuzz.prog.prog import FOR, Expect, Op, Program, TurnSpec
from fuzz.prog.text import print_program
from fuzz.run import Outcome, run
from fuzz.schedulers.replay import Replay
from fuzz.subject import Subject
from fuzz.turns import preemptions, write_down
from kstate.boot import MachineSize
from kstate.machine.machine import Fault
from kstate.syscalls import COUNT, OPERATIONS, PAGE, SLOT, SLOT_PAGES, SLOT_STRIDE

RESEARCH_RUNS = 200  # how long a smaller program without a working schedule is searched for one


@dataclass(frozen=True)
class Minimal:
    """A reproducer and what it took. program: with its turns and one expectation. runs: made."""

    program: Program
    outcome: Outcome
    runs: int


class _Search:
    def __init__(self, id: str, stop: Callable[[], bool]) -> None:
        self.id = id
        self.stop = stop
        self.tried: set[str] = set()
        self.runs = 0

    def shows(self, program: Program) -> tuple[Program, Outcome] | None:
        """Run a candidate; if it shows the finding, give it back with the turns it executed."""
        text = print_program(program)
        if text in self.tried:
            return None
        self.tried.add(text)
        self.runs += 1
        outcome = run(program)
        if self.id not in outcome.ids:
            return None
        return replace(program, choices=None, schedule=write_down(outcome)), outcome

    def finds(self, program: Program) -> tuple[Program, Outcome] | None:
        """Look for a schedule with one preemption or none that shows the finding."""
        bare = program.bare()
        text = print_program(bare)
        if text in self.tried:
            return None
        self.tried.add(text)
        for bound in (0, 1):
            for tried, outcome in enumerate(schedules(bare, None, bound)):
                self.runs += 1
                if self.id in outcome.ids:
                    return replace(bare, schedule=write_down(outcome)), outcome
                if tried == RESEARCH_RUNS or self.stop():
                    break
        return None


def minimise(
    program: Program,
    id: str,
    *,
    research: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Minimal | None:
    """The smallest program found that still shows `id`; None if `program` does not show it.

    Args:
        research: also look for a new schedule where a smaller program needs another one.
        stop: asked now and then; once true, the best so far is returned.
    """
    search = _Search(id, stop)
    start = search.shows(replace(program, expects=(), comments=()))
    if start is None:
        return None
    best, outcome = start
    improved = True
    while improved and not stop():
        improved = False
        for candidate in _smaller(best):
            if stop():
                break
            found = search.shows(candidate)
            if found is None and research and _operations(candidate) < _operations(best):
                found = search.finds(candidate)
            if found is not None and size(*found) < size(best, outcome):
                best, outcome = found
                improved = True
                break
        if not improved and research and preemptions(outcome) > 1:
            found = search.finds(best)
            if found is not None and size(*found) < size(best, outcome):
                best, outcome = found
                improved = True
    expect = Expect(best.kernel, id)
    return Minimal(replace(best, expects=(expect,)), outcome, search.runs)


def minimise_schedule(
    subject: Subject, faults: tuple[Fault, ...], turns: tuple[TurnSpec, ...], id: str
) -> tuple[tuple[Fault, ...], tuple[TurnSpec, ...], int] | None:
    """Faults and turns of which none can be left out: without any one the run does not show `id`.

    Returns: them, and the number of runs; None if these do not show it."""
    runs = 0

    def shows(candidate: tuple[TurnSpec, ...]) -> tuple[TurnSpec, ...] | None:
        nonlocal runs
        runs += 1
        ran = subject.with_faults(faults).run(Replay(candidate))
        return ran.turns() if id in ran.findings else None

    best = shows(turns)
    if best is None:
        return None
    improved = True
    while improved:
        improved = False
        for fault in faults:
            kept, faults = faults, tuple(other for other in faults if other != fault)
            if shows(best) is None:
                faults = kept
            else:
                improved = True
        for at in range(len(best) - 1, -1, -1):
            candidate = best[:at] + best[at + 1 :]
            found = shows(candidate)
            if found is not None:
                best, improved = min(found, candidate, key=len), True
                break
    return faults, best, runs


def size(program: Program, outcome: Outcome) -> tuple[int, ...]:
    """What is to become smaller, the most important first."""
    return (
        program.operations_count(),
        len(program.tasks),
        preemptions(outcome),
        len(program.schedule or ()),
        len(program.faults),
        program.size.cpus + program.size.pool + program.size.zones,
        program.size.pages,
        sum(_argument_size(op) for section in (program.init, *program.tasks) for op in section),
    )


def _operations(program: Program) -> int:
    return program.operations_count()


def _argument_size(op: Op) -> int:
    return ord(op.process) + sum(value for value in op.arguments if isinstance(value, int))


def _smaller(program: Program) -> Iterator[Program]:
    """Candidates, the biggest step first."""
    tasks = program.tasks
    for number in range(len(tasks)):
        yield _without_task(program, number)
    for number, section in enumerate((program.init, *tasks)):
        if len(section) > 3:
            for half in (section[: len(section) // 2], section[len(section) // 2 :]):
                yield _with_section(program, number, half)
        for at in range(len(section) - 1, -1, -1):
            yield _with_section(program, number, section[:at] + section[at + 1 :])
    turns = program.schedule or ()
    for at in range(len(turns) - 1, -1, -1):
        yield replace(program, schedule=turns[:at] + turns[at + 1 :])
    for at, turn in enumerate(turns):
        if turn.kind == FOR and turn.count > 1:
            shorter = TurnSpec(turn.cpu, FOR, "", turn.count - 1)
            yield replace(program, schedule=(*turns[:at], shorter, *turns[at + 1 :]))
    for at in range(len(program.faults)):
        yield replace(program, faults=program.faults[:at] + program.faults[at + 1 :])
    yield from _smaller_machines(program)
    for number, section in enumerate((program.init, *tasks)):
        for at, op in enumerate(section):
            for simpler in _simpler(op):
                yield _with_section(program, number, (*section[:at], simpler, *section[at + 1 :]))


def _smaller_machines(program: Program) -> Iterator[Program]:
    now = program.size
    for smaller in (
        replace(now, cpus=max(1, len(program.tasks))),
        replace(now, pool=0),
        replace(now, pool=max(0, now.pool - 1)),
        replace(now, zones=1),
        replace(now, pages=8),
        replace(now, pages=max(now.zones * 2, now.pages - 1)),
    ):
        if smaller != now and _possible(smaller):
            yield replace(program, size=smaller)


def _possible(size: MachineSize) -> bool:
    return size.pool < size.pages // size.zones


def _simpler(op: Op) -> Iterator[Op]:
    for at, value in enumerate(op.arguments):
        if isinstance(value, int) and value > 0:
            for lower in dict.fromkeys((0, 1, value - 16, value - 1)):
                if 0 <= lower < value and _valid(op, at, lower):
                    arguments = (*op.arguments[:at], lower, *op.arguments[at + 1 :])
                    yield replace(op, arguments=arguments)
    if op.process > "A":
        yield replace(op, process=chr(ord(op.process) - 1))


def _valid(op: Op, at: int, value: int) -> bool:

    kind = OPERATIONS[op.name].arguments[at]
    if kind == COUNT:
        return value >= 1
    if kind == SLOT:
        return value % SLOT_STRIDE == 0
    return kind != PAGE or value % SLOT_STRIDE < SLOT_PAGES


def _with_section(program: Program, number: int, ops: tuple[Op, ...]) -> Program:
    if number == 0:
        return replace(program, init=ops)
    tasks = (*program.tasks[: number - 1], ops, *program.tasks[number:])
    return replace(program, tasks=tasks)


def _without_task(program: Program, number: int) -> Program:
    """Drop a task with its faults, renumbering turns and faults of those above it."""
    names = {f"cpu{above}": f"cpu{above - 1}" for above in range(number + 1, len(program.tasks))}
    faults = tuple(
        (names.get(task, task), kind, nth)
        for task, kind, nth in program.faults
        if task != f"cpu{number}"
    )
    tasks = program.tasks[:number] + program.tasks[number + 1 :]
    turns = program.schedule
    if turns is not None:
        turns = tuple(
            replace(turn, cpu=turn.cpu - (turn.cpu > number))
            for turn in turns
            if turn.cpu != number
        )
    return replace(program, tasks=tasks, schedule=turns, faults=faults)
