"""Directed preemptions: leave a task just before an access that another task conflicts with.

After Razzer (Jeong et al., S&P 2019) and RFF (Wolff et al., ASPLOS 2024): a pair of conflicting
accesses becomes a scheduling constraint. Departure: a pair is told apart by the operations it
happens in, not by a race detector; each pair is tried a few times, the less tried first served.
"""

from __future__ import annotations

from random import Random

from fuzz.access import Access, conflicts
from fuzz.explore import Deviation

PER_PROGRAM_MAX = 4

Pair = tuple[str, int, str, int]  # operation, point of the task that is left; the same of the other


class Directed:
    """Which pairs have been tried how often; the campaign runs what it proposes."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.tried: dict[Pair, int] = {}
        self.cuts: dict[tuple[str, int], int] = {}

    def propose(
        self, first: int, mine: list[Access], other: int, theirs: list[Access]
    ) -> list[tuple[Deviation, ...]]:
        """Schedules in which `first` begins and is left for `other` before a conflicting access.

        A pair that was tried n times comes again with probability 1 / (1 + n): where it led
        nowhere, another program may still lead somewhere. Of those that come, the places where a
        task was left least often go first (Lemieux and Sen, FairFuzz, ASE 2018: aim at what is
        rare). Proposing a pair counts as trying it.
        """
        pairs_of: dict[int, tuple[Access, list[Pair]]] = {}
        for access, their in conflicts(mine, theirs):
            pair = (access.operation, access.number, their.operation, their.number)
            pairs_of.setdefault(access.step, (access, []))[1].append(pair)
        candidates: list[tuple[int, float, Access, list[Pair]]] = []
        for access, pairs in pairs_of.values():
            tries = {pair: self.tried.get(pair, 0) for pair in pairs}
            fresh = [pair for pair, count in tries.items() if self.rng.random() * (1 + count) < 1]
            if fresh and access.step > 0:
                candidates.append(
                    (self.cuts.get(access.place, 0), self.rng.random(), access, fresh)
                )
        proposed: list[tuple[Deviation, ...]] = []
        candidates.sort(key=lambda candidate: candidate[:2])
        for _, _, access, fresh in candidates[:PER_PROGRAM_MAX]:
            self.cuts[access.place] = self.cuts.get(access.place, 0) + 1
            for pair in fresh:
                self.tried[pair] = self.tried.get(pair, 0) + 1
            proposed.append(((0, first), (access.step, other)))
        return proposed
