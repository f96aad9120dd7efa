"""fuzz: programs, schedulers, oracles and searches over the kernel model in kstate.

from fuzz import parse, run
outcome = run(parse(open("corpus/races/2b-i-munlock.prog").read()))
print(outcome.outcome, [finding.text for finding in outcome.findings])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzz.prog import ProgError, Program, parse, print_program
    from fuzz.run import Outcome, run

__all__ = ["Outcome", "ProgError", "Program", "parse", "print_program", "run"]

_IN_RUN = ("Outcome", "run")


def __getattr__(name: str) -> Any:
    """Imported when first asked for: the command has to be there before all else is."""
    if name not in __all__:
        raise AttributeError(f"module 'fuzz' has no attribute {name!r}")
    return getattr(import_module("fuzz.run" if name in _IN_RUN else "fuzz.prog"), name)
