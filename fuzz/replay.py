"""Replaying program files against what they expect."""

from __future__ import annotations

import pdb
from collections.abc import Iterator
from dataclasses import dataclass

from fuzz.claims import claims_of, holds
from fuzz.explore import EXHAUSTED, Exploration, explore
from fuzz.oracles import ALL_ORACLES
from fuzz.prog.prog import Expect, Program
from fuzz.prog.text import print_expect
from fuzz.run import Outcome, run
from kstate.machine import THREADS, Operand, Point, Task
from kstate.patches import parse_spec

ENUMERATED_PREEMPTIONS = 1


@dataclass(frozen=True)
class Replayed:
    """One file on one kernel. expected: None where the file says nothing of that kernel. unmet:
    expectations in words. turns: of its schedule. enumerated: for a claim of absence whose schedule
    could not be followed, a search with a stated bound instead."""

    outcome: Outcome
    expected: bool | None
    unmet: tuple[str, ...]
    turns: int
    enumerated: Exploration | None


def replay_file(
    program: Program,
    kernel: str | None = None,
    expect_id: str | None = None,
    stop_at: int | None = None,
    *,
    enumerate_absent: bool = True,
) -> Iterator[Replayed]:
    """Run a program on every kernel it names, or on `kernel` alone.

    Args:
        expect_id: a finding that must be shown, instead of what the file expects.
        stop_at: enter pdb in the task that begins that turn, from 1.
        enumerate_absent: where a schedule diverges, check a claim of absence by enumeration.
    """
    claims = list(claims_of(program))
    named = dict.fromkeys(expect.kernel for expect in program.expects)
    named |= dict.fromkeys(claim.kernel for claim in claims)
    for spec in [kernel] if kernel else list(named) or [parse_spec(program.kernel).text]:
        if stop_at is None:
            outcome = run(program, spec, oracles=ALL_ORACLES)
        else:
            outcome = run(
                program, spec, oracles=ALL_ORACLES, observers=(_Stopper(stop_at),), backend=THREADS
            )
        expects = [expect for expect in program.expects if expect.kernel == outcome.kernel]
        if expect_id is not None:
            expects = [Expect(outcome.kernel, expect_id)]
        unmet = [print_expect(expect) for expect in expects if not meets(outcome, expect)]
        claimed = [claim for claim in claims if claim.kernel == outcome.kernel]
        unmet += [str(claim) for claim in claimed if not holds(claim, outcome)]
        enumerated = None
        absent = [expect for expect in expects if expect.absent]
        if absent and outcome.diverged is not None and enumerate_absent and not unmet:
            # A run that left its schedule is no evidence of absence.
            only = next((expect.id for expect in absent if expect.id), None)
            enumerated = explore(
                program, outcome.kernel, preemptions=ENUMERATED_PREEMPTIONS, only=only
            )
            if enumerated.verdict != EXHAUSTED:
                unmet.append(print_expect(absent[0]))
        yield Replayed(
            outcome,
            not unmet if expects or claimed else None,
            tuple(unmet),
            len(program.schedule or ()),
            enumerated,
        )


def meets(outcome: Outcome, expect: Expect) -> bool:
    """Does a run show what is expected of it?"""
    if not expect.id:
        return not outcome.findings
    return (expect.id in outcome.ids) != expect.absent


def trace_lines(outcome: Outcome) -> Iterator[str]:
    """Every step: task, point, object, results."""
    machine = outcome.machine
    for number, event in enumerate(machine.events()):
        results = " ".join(map(str, event.results))
        yield (
            f"{number:5} {machine.tasks[event.task].name:5} {event.point.name} "
            f"{machine.objects[event.operand].label()} {results}"
        ).rstrip()


class _Stopper:
    """Counts turns by watching who runs; enters pdb at the one asked for."""

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.seen = 0
        self.last: Task | None = None

    def __call__(self, task: Task, point: Point, operand: Operand) -> None:
        if task.index > 0 and task is not self.last:
            self.last = task
            self.seen += 1
            if self.seen == self.turn:
                print(f"turn {self.turn}: {task.name} is about to do {point} on {operand.label()}")
                pdb.set_trace()  # 'up' leads through step and the primitive to the model's code
