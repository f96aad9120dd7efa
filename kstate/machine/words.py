"""Shared words for programs written against the machine alone.

The kernel model writes its shared words out as properties, in structs.py; they work the same way.
"""

from __future__ import annotations

from kstate.machine.machine import Machine
from kstate.machine.points import LOAD, Primitive
from kstate.machine.switch import step


class Word:
    """A shared integer. Every access is one step.

    name: names its points, `load(name)`; words of one name on one machine are told apart by label.
    """

    __slots__ = ("_label", "_value", "id", "load_primitive", "machine", "rmw", "store_primitive")

    def __init__(self, machine: Machine, name: str, value: int = 0, label: str = "") -> None:
        self.machine = machine
        self._label = label or name
        self._value = value
        self.id = machine.register(self)
        primitives = _PRIMITIVES.get(name)
        if primitives is None:
            primitives = _PRIMITIVES[name] = (
                Primitive("load", name, LOAD, results=1),
                Primitive("store", name, results=1),
                Primitive("atomic", name, results=1),
            )
        self.load_primitive, self.store_primitive, self.rmw = primitives

    def label(self) -> str:
        return self._label

    def peek(self) -> int:
        """Look without a step: for oracles and assertions after the run."""
        return self._value


_PRIMITIVES: dict[str, tuple[Primitive, Primitive, Primitive]] = {}


def load(word: Word) -> int:
    log = step(word.load_primitive, word)
    log.append(word._value)
    return word._value


def store(word: Word, value: int) -> None:
    log = step(word.store_primitive, word)
    log.append(value)
    word._value = value


def fetch_add(word: Word, amount: int) -> int:
    """Add atomically; returns the value before."""
    log = step(word.rmw, word)
    before = word._value
    log.append(before)
    word._value = before + amount
    return before


def cmpxchg(word: Word, expected: int, new: int) -> int:
    """Store `new` if the word is `expected`, atomically; returns the value before."""
    log = step(word.rmw, word)
    before = word._value
    log.append(before)
    if before == expected:
        word._value = new
    return before
