"""Changing programs. Every mutation of a valid program is valid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from fuzz.prog.generate import (
    INIT_OPERATIONS_MAX,
    PROCESSES_USED,
    TASK_OPERATIONS_MAX,
    Vocabulary,
    random_argument,
    random_vocabulary,
    related_op,
)
from fuzz.prog.prog import Op, Program
from kstate.syscalls import OPERATIONS

Sections = list[list[Op]]


def mutate(rng: Random, program: Program, other: Program) -> Program:
    """One or two random changes; `other` is where spliced parts come from."""
    sections: Sections = [list(program.init), *(list(task) for task in program.tasks)]
    donors: Sections = [list(other.init), *(list(task) for task in other.tasks)]
    words = random_vocabulary(rng, program.size)
    for _ in range(rng.randrange(1, 3)):
        rng.choice(_MUTATIONS)(rng, sections, donors, words)
    for number, section in enumerate(sections):
        most = TASK_OPERATIONS_MAX if number else INIT_OPERATIONS_MAX + 2
        while len(section) > most:
            del section[rng.randrange(len(section))]
    if not any(sections):
        sections[0].append(related_op(rng, _all(sections), words))
    return replace(program.bare(), init=tuple(sections[0]), tasks=tuple(map(tuple, sections[1:])))


def _all(sections: Sections) -> list[Op]:
    return [op for section in sections for op in section]


def _append(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    sections[-1].append(related_op(rng, _all(sections), words))


def _insert(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    section = rng.choice(sections)
    section.insert(rng.randrange(len(section) + 1), related_op(rng, _all(sections), words))


def _delete(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    section = rng.choice(sections)
    if section:
        del section[rng.randrange(len(section))]


def _change_argument(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    section = rng.choice(sections)
    if not section:
        return
    at = rng.randrange(len(section))
    op = section[at]
    kinds = OPERATIONS[op.name].arguments
    if not kinds or rng.random() < 0.3:
        section[at] = replace(op, process=rng.choice(PROCESSES_USED))
        return
    number = rng.randrange(len(kinds))
    arguments = list(op.arguments)
    arguments[number] = random_argument(rng, kinds[number], words)
    section[at] = replace(op, arguments=tuple(arguments))


def _copy(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    section = rng.choice(sections)
    if section:
        target = rng.choice(sections)
        target.insert(rng.randrange(len(target) + 1), rng.choice(section))


def _mirror(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    """What one process does, another does too: then they share what it is done to."""
    section = rng.choice(sections)
    if section:
        at = rng.randrange(len(section))
        others = PROCESSES_USED.replace(section[at].process, "")
        section.insert(at + 1, replace(section[at], process=rng.choice(others)))


def _move(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    section = rng.choice(sections)
    if section:
        op = section.pop(rng.randrange(len(section)))
        target = rng.choice(sections)
        target.insert(rng.randrange(len(target) + 1), op)


def _splice(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    number = rng.randrange(min(len(sections), len(donors)))
    keep = rng.randrange(len(sections[number]) + 1)
    taken = rng.randrange(len(donors[number]) + 1)
    sections[number][keep:] = donors[number][taken:]


def _replace(rng: Random, sections: Sections, donors: Sections, words: Vocabulary) -> None:
    section = rng.choice(sections)
    if section:
        section[rng.randrange(len(section))] = related_op(rng, _all(sections), words)


_MUTATIONS: tuple[Callable[[Random, Sections, Sections, Vocabulary], None], ...] = (
    _append,
    _append,
    _append,
    _insert,
    _delete,
    _change_argument,
    _copy,
    _mirror,
    _mirror,
    _move,
    _splice,
    _replace,
)
