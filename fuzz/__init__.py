"""fuzz: programs, schedulers, oracles and searches over the kernel model in kstate.

from fuzz import parse, run
outcome = run(parse(open("corpus/races/2b-i-munlock.prog").read()))
print(outcome.outcome, [finding.text for finding in outcome.findings])
"""

from fuzz.prog import ProgError, Program, parse, print_program
from fuzz.run import Outcome, run

__all__ = ["Outcome", "ProgError", "Program", "parse", "print_program", "run"]
