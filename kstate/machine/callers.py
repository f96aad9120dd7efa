"""Who uses a primitive: the function that a yield point is named by.

Interpreted code is asked for its frame. Compiled code has no frames: there each function of the
model says when it begins and when it returns, in two lines that the build adds (see setup.py).
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Final, TypeVar

from kstate.machine.compiled import COMPILED


class Function:
    """A function known by its name; in compiled code it stands for the code object."""

    __slots__ = ("co_filename", "co_name")

    def __init__(self, co_filename: str, co_name: str) -> None:
        self.co_filename = co_filename
        self.co_name = co_name


Code = CodeType | Function
Result = TypeVar("Result")


class Running:
    """functions: the compiled functions that the running task is inside of, the innermost last.

    One for the process, so compiled machines cannot run in several OS threads at the same time."""

    __slots__ = ("functions",)

    def __init__(self) -> None:
        self.functions: list[Function] = []


RUNNING: Final = Running()


def begun(function: Function) -> Function:
    RUNNING.functions.append(function)
    return function


def ended() -> None:
    RUNNING.functions.pop()


def result(begun: Function, value: Result) -> Result:
    """Of a lambda, which is one expression: `result(begun(f), value)`."""
    RUNNING.functions.pop()
    return value


def calling(depth: int) -> Code:
    """The function `depth` frames above the caller; in compiled code the model's innermost one,
    or interpreted code that has called a primitive itself."""
    if RUNNING.functions:
        return RUNNING.functions[-1]
    return sys._getframe(0 if COMPILED else depth + 1).f_code


def call_chain(depth: int) -> list[Code]:
    """The functions under way, the innermost first, from `depth` frames above the caller on; in
    compiled code the model's first, then interpreted ones from the caller on."""
    chain: list[Code] = list(reversed(RUNNING.functions))
    frame: FrameType | None = sys._getframe(0 if COMPILED else depth + 1)
    while frame is not None:
        chain.append(frame.f_code)
        frame = frame.f_back
    return chain
