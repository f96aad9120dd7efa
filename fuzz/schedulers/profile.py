"""What a sampler must know of a program: counts of the profile run, which is its default run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kstate.machine import LOAD, Machine

Counts = tuple[int, ...]  # one a task, by its index, init first; each at least 1

WORDS_MAX = 64
_SPELLABLE = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Profile:
    """steps: taken while tasks competed. events: the same by task. words: the classes of word that
    two tasks used on one object, one of them storing: how many events on them, by task."""

    steps: int
    events: Counts = (1,)
    words: dict[str, Counts] = field(default_factory=dict)


def profile_of(machine: Machine) -> Profile:
    """The profile a run gives: from the first spawn to when only init is left."""
    events = list(machine.events())
    spawned = next((at for at, e in enumerate(events) if e.point.primitive.name == "spawn"), -1)
    last = max((at for at, event in enumerate(events) if event.task), default=-1)
    competing = events[spawned + 1 : last + 1]
    tasks = len(machine.tasks)
    total = [0] * tasks
    by_word: dict[str, list[int]] = {}
    users: dict[tuple[int, str], tuple[int, bool]] = {}
    shared: set[str] = set()
    for event in competing:
        primitive = event.point.primitive
        word, stores = primitive.word, primitive.access != LOAD
        total[event.task] += 1
        by_word.setdefault(word, [0] * tasks)[event.task] += 1
        user, stored = users.setdefault((event.operand, word), (event.task, stores))
        if user != event.task and (stored or stores):
            shared.add(word)
        elif stores and not stored:
            users[event.operand, word] = (event.task, True)
    names = sorted(word for word in shared if _SPELLABLE.fullmatch(word))[:WORDS_MAX]
    return Profile(
        max(1, len(competing)), _clamp(total), {word: _clamp(by_word[word]) for word in names}
    )


def _clamp(counts: list[int]) -> Counts:
    """Never 0: a task that did nothing in the profile run may do something in another, and with
    too small a weight its events would come too late in nearly every schedule."""
    return tuple(max(1, count) for count in counts)
