"""Named yield points: which primitive, on what class of object, in which function.

A `Primitive` is one atomic operation on one class of object, such as `spin_lock(ptl)`.
A `Point` is a primitive in the function that uses it: `mm/rmap.py:try_to_unmap_one spin_lock(ptl)`.
Points carry no line number and no path outside the package, so they survive edits and moves.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

from kstate.machine.callers import Code

if TYPE_CHECKING:
    from kstate.machine.machine import Machine
    from kstate.machine.task import Task


class Operand(Protocol):
    """Whatever a primitive works on: it knows its machine, its number there and its name."""

    machine: Machine
    id: int

    def label(self) -> str: ...


Ready = Callable[[Any, "Task"], bool]
Holders = Callable[[Any, "Task"], "list[Task]"]

# What a primitive does to its word, for `dependent`: two loads of one word commute, nothing else.
LOAD, STORE = "load", "store"
_MARKS = "_.:<>-"  # in names, beside letters and digits, as fuzz.prog.text reads them


class Primitive:
    """One atomic operation on one class of object.

    Args:
        name: what it is called, `spin_lock`.
        word: the class of lock or field it works on, `ptl`; two primitives meet where both the
            object and the word are the same.
        access: `LOAD` or `STORE`; every lock operation is a `STORE`.
        results: how many integers it appends to the log after its point and operand.
        ready: for a primitive that can block: may `task` take this step on `operand` now?
        holders: for a primitive that can block: whom would it wait for?
        used_by: who uses it, where that is always the same; else whoever calls it.
    Raises:
        ValueError: a schedule could not name it.
    """

    __slots__ = ("access", "holders", "name", "points", "ready", "results", "used_by", "word")

    def __init__(
        self,
        name: str,
        word: str,
        access: str = STORE,
        *,
        results: int = 0,
        ready: Ready | None = None,
        holders: Holders | None = None,
        used_by: Code | None = None,
    ) -> None:
        if not all(letter.isalnum() or letter in _MARKS for letter in word):
            raise ValueError(f"{word!r}: names have letters, digits and . : _ - < > only")
        self.name = name
        self.word = word
        self.access = access
        self.results = results
        self.ready = ready
        self.holders = holders
        self.used_by = used_by
        self.points: dict[str, Point] = {}

    def __str__(self) -> str:
        return f"{self.name}({self.word})"

    def in_function(self, caller: Code) -> Point:
        """The point of this primitive in `caller`, made on first use.

        The table is keyed by function name; of two functions with one name the last one met is
        in the table, and the other is found again among all points."""
        code = self.used_by or caller
        point = self.points.get(code.co_name)
        if point is not None and point.code is code:
            return point
        name = f"{function_name(code)} {self}"
        point = _POINT_BY_NAME.get(name)
        if point is None or point.code is not code:
            point = Point(name, self, code)
            known = _POINT_BY_NUMBER.setdefault(point.number, point)
            if known.name != name:
                raise ValueError(f"points {known.name!r} and {name!r} have one number")
            _POINT_BY_NAME[name] = point
            LOG_LENGTH[point.number] = 2 + self.results
        self.points[code.co_name] = point
        return point


class Point:
    """A primitive in a function. `number` is 62 bits of the name's SHA-256: the same everywhere.

    logged: the number again, untyped: compiled code makes a new object of an int at every use."""

    __slots__ = ("code", "function", "logged", "name", "number", "primitive")

    def __init__(self, name: str, primitive: Primitive, code: Code) -> None:
        self.name = name
        self.primitive = primitive
        self.code = code
        self.function = code.co_name
        self.number = int.from_bytes(sha256(name.encode()).digest()[:8], "big") >> 2
        self.logged: Any = self.number

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Point({self.name!r})"


KERNEL_FOLDERS = ("mm", "fs", "kernel")
_POINT_BY_NAME: dict[str, Point] = {}
_POINT_BY_NUMBER: dict[int, Point] = {}
# Of a step in a log, by its point's number: number, operand and results.
LOG_LENGTH: dict[int, int] = {}


def point_by_number(number: int) -> Point:
    """The point whose number stands in a log.

    Raises:
        KeyError: no run of this process has met that point.
    """
    return _POINT_BY_NUMBER[number]


def points_met() -> list[Point]:
    """Every point that some run of this process has met, by name."""
    return [_POINT_BY_NAME[name] for name in sorted(_POINT_BY_NAME)]


def function_name(code: Code) -> str:
    """`mm/rmap.py:try_to_unmap_one`: the file relative to kstate, or its bare name elsewhere."""
    parts = PurePath(code.co_filename).parts
    in_folder = parts[-3:-2] == ("kstate",) and parts[-2] in KERNEL_FOLDERS
    file = "/".join(parts[-2:]) if in_folder else parts[-1]
    return f"{file}:{code.co_name}"


def dependent(a: Point, a_object: int, b: Point, b_object: int) -> bool:
    """Do two steps of different tasks conflict: may their order matter?

    The one table behind race reports, POS and partial order reduction. Steps on different objects
    or different words commute, and so do two loads; everything else on one object is dependent.
    A word of a set (`flags.lru`) conflicts with the whole set (`flags`).
    """
    if a_object != b_object:
        return False
    if a.primitive.access == LOAD and b.primitive.access == LOAD:
        return False
    return same_word(a.primitive.word, b.primitive.word)


def same_word(one: str, other: str) -> bool:
    """`flags` is the same word as `flags.lru`, which is not the same as `flags.dirty`."""
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")
