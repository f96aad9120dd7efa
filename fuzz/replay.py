"""Replaying program files against what they expect."""

from __future__ import annotations

import pdb
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from fuzz.claims import claims_of, holds
from fuzz.explore import UNDETERMINED, Exploration, explore
from fuzz.oracles import ALL_ORACLES
from fuzz.prog.prog import Expect, Program
from fuzz.prog.text import print_expect
from fuzz.run import CLEAN, FINDING, Outcome, run
from fuzz.schedulers import Replay
from kstate.machine import THREADS, Operand, Point, Task
from kstate.patches import parse_spec

ENUMERATED_PREEMPTIONS = 1


@dataclass(frozen=True)
class Replayed:
    """One file on one kernel. expected: None where the file says nothing of that kernel. unmet:
    expectations in words. turns: of its schedule. enumerated: for a claim of absence whose run is
    no evidence (it left its schedule, or ended early), a search with a stated bound instead."""

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
        enumerate_absent: where a run is no evidence of absence, check that by enumeration.
    """
    claims = list(claims_of(program))
    named = dict.fromkeys(expect.kernel for expect in program.expects)
    named |= dict.fromkeys(claim.kernel for claim in claims)
    for spec in [kernel] if kernel else list(named) or [parse_spec(program.kernel).text]:
        if stop_at is None:
            outcome = run(program, spec, oracles=ALL_ORACLES)
        else:
            replay = Replay(program.schedule or ())
            outcome = run(
                program,
                spec,
                replay,
                oracles=ALL_ORACLES,
                observers=(_Stopper(replay, stop_at),),
                backend=THREADS,
            )
        expects = [expect for expect in program.expects if expect.kernel == outcome.kernel]
        if expect_id is not None:
            expects = [Expect(outcome.kernel, expect_id)]
        unmet = [print_expect(expect) for expect in expects if not meets(outcome, expect)]
        claimed = [claim for claim in claims if claim.kernel == outcome.kernel]
        unmet += [str(claim) for claim in claimed if not holds(claim, outcome)]
        enumerated = None
        absent = [expect for expect in expects if expect.absent]
        if absent and not unmet and enumerate_absent and not _is_evidence(outcome):
            ids = {expect.id for expect in absent}
            enumerated = explore(
                program,
                outcome.kernel,
                preemptions=ENUMERATED_PREEMPTIONS,
                only=min(ids) if len(ids) == 1 and "" not in ids else None,
            )
            unmet = [print_expect(expect) for expect in absent if _shows(enumerated, expect)]
        yield Replayed(
            outcome,
            not unmet if expects or claimed else None,
            tuple(unmet),
            len(program.schedule or ()),
            enumerated,
        )


def _is_evidence(outcome: Outcome) -> bool:
    """Does it say of a finding that is not shown that this run does not have it? Not one that has
    left its schedule; nor one that ended before what is looked for at the end could be asked."""
    return outcome.diverged is None and outcome.outcome in (CLEAN, FINDING)


def _shows(found: Exploration, expect: Expect) -> bool:
    """Is it not exhausted, or shown by some run, what is to be absent?"""
    if found.verdict == UNDETERMINED:
        return True
    return bool(found.findings) if not expect.id else expect.id in found.findings


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
    """Watches how far a replay is; enters pdb in the task that begins the turn asked for."""

    def __init__(self, replay: Replay, turn: int) -> None:
        self.replay = replay
        self.turn = turn
        self.stopped = False

    def __call__(self, task: Task, point: Point, operand: Operand) -> None:
        # `at` is the turn under way, from 0: its first step is about to be taken.
        if task.index > 0 and not self.stopped and self.replay.at + 1 >= self.turn:
            self.stopped = True
            said = f"turn {self.turn}: {task.name} is about to do {point} on {operand.label()}"
            print(said, file=sys.stderr)
            debugger = pdb.Pdb(stdout=sys.stderr)
            debugger.use_rawinput = False
            debugger.set_trace()  # 'up' leads through step and the primitive to the model's code
