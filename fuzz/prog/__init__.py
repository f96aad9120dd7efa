"""Programs: what they are (prog), as text (text), made up (generate), changed (mutate)."""

from fuzz.prog.prog import Expect, Op, ProgError, Program, TurnSpec
from fuzz.prog.text import parse, print_program

__all__ = ["Expect", "Op", "ProgError", "Program", "TurnSpec", "parse", "print_program"]
