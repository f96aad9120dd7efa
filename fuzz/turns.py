"""Writing down the schedule a run has executed: turns that name points, not step counts."""

from __future__ import annotations

from typing import Protocol

from fuzz.prog.prog import BLOCKED, END, UNTIL, TurnSpec
from fuzz.run import Outcome
from kstate.machine import Machine, Switch, decode
from kstate.machine.machine import SPAWN


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
    begins = _goes_on_after_spawn(machine)
    if begins is not None:
        switches.insert(0, Switch(begins, 0, 0, 0, False, None, 0, False))
    for number, switch in enumerate(switches):
        following = switches[number + 1] if number + 1 < len(switches) else None
        if following is None:
            if switch.chosen:
                turns.append(TurnSpec(switch.entered - 1, END))
                keep = len(turns)
            break
        turns.append(_turn(machine.log, switch, following))
        if switch.chosen or following.preempted:
            keep = len(turns)
    return tuple(turns[:keep])


def init_competes(machine: Machine) -> bool:
    """Has init done anything while others could run, but wait for them?"""
    return _goes_on_after_spawn(machine) is not None or any(
        switch.preempted and 0 in (switch.left, switch.entered) for switch in machine.switches
    )


def _goes_on_after_spawn(machine: Machine) -> int | None:
    """Where in the log init takes its first step beside the tasks it has spawned, if it does before
    any of them runs."""
    switches = machine.switches
    spawned = False
    for event in decode(machine.log[: switches[0].log_at if switches else None]):
        if spawned:
            return event.log_at
        spawned = event.point.primitive is SPAWN
    return None


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


def preemptions(outcome: Outcome) -> int:
    """How often a task was left that could have gone on."""
    return sum(1 for switch in outcome.machine.switches if switch.preempted and switch.left > 0)
