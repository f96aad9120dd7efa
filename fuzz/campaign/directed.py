"""Directed preemptions: leave a task just before an access that another task conflicts with.

After Razzer (Jeong et al., S&P 2019) and RFF (Wolff et al., ASPLOS 2024): a pair of conflicting
accesses becomes a scheduling constraint. Departure: pairs come from what ran, not from a race
detector, and what was tried less often is tried first. Two counts say how often: one of the two
points alone, whatever operations led there, so that a few thousand pairs cover the kernel; and one
of the points in their context, the operations and the shape of the object, for what a pair of
points leads to depends on who meets there over what. Another context of points that met in many
is worth less: reference counts meet everywhere. Nobody is left with a lock that the other waits
for before it gets to its access.
"""

from __future__ import annotations

from math import sqrt

from fuzz.access import Access, conflicts, reaches
from fuzz.bounded import Deviation

PER_ORDER_MAX = 8  # preemptions proposed for one order of two tasks
WORTH_LEAST = 0.02  # of a preemption, to be tried at all

Shape = int  # what an object looks like while all is quiet; 0: of no known shape
# Operation and point of the task that is left, the same of the other, shape of what they meet over.
Pair = tuple[str, int, str, int, Shape]


class Directed:
    """What has been tried how often; the campaign runs what it proposes.

    points: by the two points. contexts: by pair."""

    def __init__(self) -> None:
        self.points: dict[tuple[int, int], int] = {}
        self.contexts: dict[Pair, int] = {}

    def worth(self, pair: Pair) -> float:
        """Of trying a pair: 2 if its points never met; less, the more often they did."""
        tries = 1 + self.points.get((pair[1], pair[3]), 0)
        here = 1 + self.contexts.get(pair, 0)
        return 1 / (tries * tries) + 1 / (here * here * sqrt(tries))

    def propose(
        self,
        first: int,
        mine: list[Access],
        other: int,
        theirs: list[Access],
        shapes: dict[int, Shape],
    ) -> list[tuple[Deviation, ...]]:
        """Schedules in which `first` begins and is left for `other` before a conflicting access,
        the one most worth a try first. shapes: by id of the object. Proposing counts as trying."""
        cuts: dict[int, dict[Pair, None]] = {}
        for access, their in conflicts(mine, theirs):
            if access.step > 0 and reaches(their, access):
                pair = (*access.place, *their.place, shapes.get(access.operand, 0))
                cuts.setdefault(access.step, {})[pair] = None
        proposed: list[tuple[Deviation, ...]] = []
        while cuts and len(proposed) < PER_ORDER_MAX:
            worths = {step: max(map(self.worth, pairs)) for step, pairs in cuts.items()}
            step = max(worths, key=lambda step: (worths[step], -step))
            if worths[step] < WORTH_LEAST:
                break
            for pair in cuts.pop(step):
                points = pair[1], pair[3]
                self.points[points] = self.points.get(points, 0) + 1
                self.contexts[pair] = self.contexts.get(pair, 0) + 1
            proposed.append(((0, first), (step, other)))
        return proposed
