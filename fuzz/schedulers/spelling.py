"""Schedulers by name: `pct(depth=3)`, expanded before a run to `pct(depth=3,steps=212)`."""

from __future__ import annotations

import re
from collections.abc import Callable

from fuzz.prog.prog import ProgError
from fuzz.schedulers.default import Default
from fuzz.schedulers.pct import Pct
from fuzz.schedulers.random_walk import RandomWalk
from kstate.machine import Scheduler

# name: (class, parameters with default and bounds; None: taken from the profile run)
SCHEDULERS: dict[str, tuple[Callable[..., Scheduler], dict[str, int | None]]] = {
    "default": (Default, {}),
    "random_walk": (RandomWalk, {"run": 1}),
    "pct": (Pct, {"depth": 3, "steps": None}),
}
SPELLING = re.compile(r"(\w+)(?:\(([^()]*)\))?")
PARAMETER_MAX = 100_000


def parse_scheduler(text: str) -> tuple[str, dict[str, int | None]]:
    """Name and parameters; None for one that the profile run will give.

    Raises:
        ProgError: unknown scheduler or parameter.
    """
    match = SPELLING.fullmatch(text.strip())
    if match is None or match[1] not in SCHEDULERS:
        raise ProgError(f"unknown scheduler {text!r}; known: {', '.join(sorted(SCHEDULERS))}")
    name = match[1]
    parameters = dict(SCHEDULERS[name][1])
    for item in filter(None, (part.strip() for part in (match[2] or "").split(","))):
        key, _, value = item.partition("=")
        if key not in parameters:
            raise ProgError(f"scheduler {name} has no parameter {key!r}")
        if not value.isdigit() or not 1 <= int(value) <= PARAMETER_MAX:
            raise ProgError(f"{name}: {key} is a number from 1 to {PARAMETER_MAX}")
        parameters[key] = int(value)
    return name, parameters


def expand(text: str, profile_steps: Callable[[], int]) -> str:
    """The canonical spelling, with what the profile run tells filled in."""
    name, parameters = parse_scheduler(text)
    filled = {key: profile_steps() if value is None else value for key, value in parameters.items()}
    if not filled:
        return name
    return f"{name}({','.join(f'{key}={value}' for key, value in filled.items())})"


def make_scheduler(expanded: str) -> Scheduler:
    """The scheduler of an expanded spelling."""
    name, parameters = parse_scheduler(expanded)
    missing = [key for key, value in parameters.items() if value is None]
    if missing:
        raise ProgError(f"scheduler {expanded!r} is not expanded: {', '.join(missing)} is missing")
    return SCHEDULERS[name][0](**parameters)
