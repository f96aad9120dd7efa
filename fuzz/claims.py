"""What a race file claims beyond findings: the order of steps, and how many of a kind there are.

In comments of the file:  `# order v4.3: STEP < STEP < STEP`  and  `# count v4.3: STEP = 4`.
A STEP is part of a point's name, `__unmap_and_move trylock_page(flags.locked)`, or a function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fuzz.prog.prog import ProgError, Program
from fuzz.run import Outcome
from kstate.patches import SpecError, parse_spec


@dataclass(frozen=True)
class Claim:
    """kernel: a spec. steps: in order. count: of the one step there is; None for an order."""

    kernel: str
    steps: tuple[str, ...]
    count: int | None = None

    def __str__(self) -> str:
        if self.count is None:
            return f"order {' < '.join(self.steps)}"
        return f"count {self.steps[0]} = {self.count}"


def claims_of(program: Program) -> Iterator[Claim]:
    """The claims in a program's comments.

    Raises: ProgError: one that cannot be read.
    """
    for _, _, comment in program.comments:
        kind, _, rest = comment.partition(" ")
        if kind not in ("order", "count"):
            continue
        spec, colon, said = rest.partition(": ")
        if not colon:
            continue
        try:
            kernel = parse_spec(spec).text
        except SpecError as error:
            raise ProgError(f"comment {comment[:60]!r}: {error}") from None
        if kind == "order":
            yield Claim(kernel, tuple(part.strip() for part in said.split(" < ")))
        else:
            step, equals, number = said.rpartition(" = ")
            if not equals or not number.isdigit():
                raise ProgError(f"comment {comment[:60]!r}: expected 'STEP = NUMBER'")
            yield Claim(kernel, (step.strip(),), int(number))


def holds(claim: Claim, outcome: Outcome) -> bool:
    """Is a claim true of a run? Only steps taken while tasks compete, or after, are looked at."""
    names = [event.point.name for event in outcome.machine.events() if event.task > 0]
    if claim.count is not None:
        return sum(claim.steps[0] in name for name in names) == claim.count
    at = 0
    for step in claim.steps:
        while at < len(names) and step not in names[at]:
            at += 1
        if at == len(names):
            return False
        at += 1
    return True
