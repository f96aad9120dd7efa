"""Schedulers by name: `pct(depth=3)`, expanded before a run to `pct(depth=3,steps=212)`.

What a scheduler must know of the program stands in its expanded spelling, and only there:
    pos                               nothing
    delay(delays=2,steps=212)         a number
    urw(events=1+120+92)              a number for each task, init first
    surw(words=pte:1+9+3/ptl:1+4+2)   the same for each class of word
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fuzz.prog.prog import ProgError
from fuzz.schedulers.default import Default
from fuzz.schedulers.delay import Delay
from fuzz.schedulers.pct import Pct
from fuzz.schedulers.pos import Pos
from fuzz.schedulers.profile import WORDS_MAX, Counts, Profile
from fuzz.schedulers.random_walk import RandomWalk
from fuzz.schedulers.surw import Surw
from fuzz.schedulers.urw import Urw
from kstate.machine import Scheduler

PARAMETER_MAX = 100_000
COUNTS_MAX = 1000  # tasks; programs of a user's own may have many


@dataclass(frozen=True)
class Parameter:
    """form: what its value is, in words. read: text to value, ValueError if it is not of that form.
    write: value to canonical text. default: the value where none is given, or how to get it from
    the profile run."""

    form: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    default: int | Callable[[Profile], Any]


def _read_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= PARAMETER_MAX:
        raise ValueError
    return int(text)


def _read_counts(text: str) -> Counts:
    counts = tuple(_read_number(item) for item in text.split("+"))
    if len(counts) > COUNTS_MAX:
        raise ValueError
    return counts


def _write_counts(counts: Counts) -> str:
    return "+".join(map(str, counts))


def _read_words(text: str) -> dict[str, Counts]:
    words: dict[str, Counts] = {}
    for item in filter(None, text.split("/")):
        word, colon, counts = item.partition(":")
        if not word or not colon or word in words or len(words) == WORDS_MAX:
            raise ValueError
        words[word] = _read_counts(counts)
    return words


def _write_words(words: dict[str, Counts]) -> str:
    return "/".join(f"{word}:{_write_counts(counts)}" for word, counts in words.items())


def _number(default: int | Callable[[Profile], int]) -> Parameter:
    return Parameter(f"a number from 1 to {PARAMETER_MAX}", _read_number, str, default)


STEPS = _number(lambda profile: profile.steps)
EVENTS = Parameter(
    "a number for each task, init first, as in 1+120+92",
    _read_counts,
    _write_counts,
    lambda profile: profile.events,
)
WORDS = Parameter(
    "numbers for each word, as in pte:1+9+3/ptl:1+4+2",
    _read_words,
    _write_words,
    lambda profile: profile.words,
)

SCHEDULERS: dict[str, tuple[Callable[..., Scheduler], dict[str, Parameter]]] = {
    "default": (Default, {}),
    "random_walk": (RandomWalk, {"run": _number(1)}),
    "pct": (Pct, {"depth": _number(3), "steps": STEPS}),
    "pos": (Pos, {}),
    "urw": (Urw, {"events": EVENTS}),
    "surw": (Surw, {"words": WORDS}),
    "delay": (Delay, {"delays": _number(2), "steps": STEPS}),
}
# What `--scheduler all` means, and what a campaign samples with.
SAMPLERS = (
    "random_walk",
    "random_walk(run=20)",
    "pct(depth=2)",
    "pct(depth=3)",
    "pos",
    "urw",
    "surw",
    "delay(delays=1)",
    "delay(delays=2)",
)
SPELLING = re.compile(r"(\w+)(?:\(([^()]*)\))?")


def parse_scheduler(text: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters, without those that the profile run will give.

    Raises:
        ProgError: unknown scheduler or parameter.
    """
    match = SPELLING.fullmatch(text.strip())
    if match is None or match[1] not in SCHEDULERS:
        raise ProgError(f"unknown scheduler {text!r}; known: {', '.join(sorted(SCHEDULERS))}")
    name = match[1]
    known = SCHEDULERS[name][1]
    given: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in (match[2] or "").split(","))):
        key, _, value = item.partition("=")
        if key not in known:
            raise ProgError(f"scheduler {name} has no parameter {key!r}")
        try:
            given[key] = known[key].read(value)
        except ValueError:
            raise ProgError(f"{name}: {key} is {known[key].form}") from None
    for key, parameter in known.items():
        if isinstance(parameter.default, int):
            given.setdefault(key, parameter.default)
    return name, {key: given[key] for key in known if key in given}


def expand(text: str, profile: Callable[[], Profile]) -> str:
    """The canonical spelling, with what the profile run tells filled in."""
    name, given = parse_scheduler(text)
    filled = []
    for key, parameter in SCHEDULERS[name][1].items():
        if key in given:
            value = given[key]
        else:
            assert callable(parameter.default)
            value = parameter.default(profile())
        filled.append(f"{key}={parameter.write(value)}")
    return f"{name}({','.join(filled)})" if filled else name


def make_scheduler(expanded: str) -> Scheduler:
    """The scheduler of an expanded spelling."""
    name, given = parse_scheduler(expanded)
    missing = [key for key in SCHEDULERS[name][1] if key not in given]
    if missing:
        raise ProgError(f"scheduler {expanded!r} is not expanded: {', '.join(missing)} is missing")
    return SCHEDULERS[name][0](**given)
