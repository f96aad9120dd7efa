"""Programs: what they are (prog.py), as text (text.py), made up (generate.py), changed (mutate.py)."""

from fuzz.prog.prog import Expect, Op, ProgError, Program, TurnSpec
from fuzz.prog.text import parse, print_program

__all__ = ["Expect", "Op", "ProgError", "Program", "TurnSpec", "parse", "print_program"]
