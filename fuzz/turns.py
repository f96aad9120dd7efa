"""Writing down the schedule a run has executed: turns that name points, not step counts."""

from __future__ import annotations

from typing import Protocol

from fuzz.prog.prog import BLOCKED, END, UNTIL, TurnSpec
from fuzz.run import Outcome
from kstate.machine import Machine, Switch, decode


class Ran(Protocol):
    """A run that is over."""

    @property
    def machine(self) -> Machine: ...


def write_down(outcome: Ran) -> tuple[TurnSpec, ...]:
    """The turns of a run, from when tasks compete to its last change of turn that was a choice.

    What comes after is the default run. Replaying them gives the same run again."""
    machine = outcome.machine
    turns: list[TurnSpec] = []
    keep = 0
    switches = machine.switches
    for number, switch in enumerate(switches):
        if switch.entered == 0:
            continue
        following = switches[number + 1] if number + 1 < len(switches) else None
        if following is None:
            if switch.preempted or _skips_lower(switches, number):
                turns.append(TurnSpec(switch.entered - 1, END))
                keep = len(turns)
            break
        turns.append(_turn(machine.log, switch, following))
        chosen = switch.preempted or _skips_lower(switches, number)
        if chosen or following.preempted:
            keep = len(turns)
    return tuple(turns[:keep])


def _turn(log: list[int], switch: Switch, following: Switch) -> TurnSpec:
    cpu = switch.entered - 1
    if not following.preempted:
        return TurnSpec(cpu, BLOCKED if following.point is not None else END)
    assert following.point is not None
    number = following.point.number
    passed = sum(
        1 for event in decode(log[switch.log_at : following.log_at]) if event.point.number == number
    )
    return TurnSpec(cpu, UNTIL, following.point.name, passed + 1)


def _skips_lower(switches: list[Switch], number: int) -> bool:
    """May the default run have chosen another task here? Where a task with a lower cpu is to run
    later and this one was not forced: a safe yes; dropping the turn is the minimiser's to try."""
    entered = switches[number].entered
    return any(0 < later.entered < entered for later in switches[number + 1 :])


def preemptions(outcome: Outcome) -> int:
    """How often a task was left that could have gone on."""
    return sum(1 for switch in outcome.machine.switches if switch.preempted and switch.left > 0)
