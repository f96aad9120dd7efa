"""The choices of a run: two streams of integers, nothing else is random."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

SCHEDULE, FAULTS = "schedule", "faults"


class Choices:
    """Two independent streams, so that a fault never shifts the draws of the scheduler.

    Args:
        schedule: integers >= 0 for the scheduler; an exhausted stream goes on with zeros.
        faults: the same for injected faults; 0 means no fault.
        more: where the schedule goes on instead of zeros, for sampling: called for one integer at
            a time. What it gave is appended to `schedule`, so the run can be repeated without it.
    """

    __slots__ = ("_at", "_more", "faults", "schedule")

    def __init__(
        self,
        schedule: Iterable[int] = (),
        faults: Iterable[int] = (),
        more: Callable[[], int] | None = None,
    ) -> None:
        self.schedule = list(schedule)
        self.faults = list(faults)
        self._more = more
        self._at = {SCHEDULE: 0, FAULTS: 0}

    def choose(self, n: int, kind: str = SCHEDULE) -> int:
        """The next integer of a stream, modulo `n` (>= 1). 0 where the stream is exhausted."""
        stream = self.schedule if kind == SCHEDULE else self.faults
        at = self._at[kind]
        self._at[kind] = at + 1
        if at < len(stream):
            return stream[at] % n
        if self._more is None or kind == FAULTS:
            return 0
        stream.append(self._more())
        return stream[at] % n

    def used(self) -> tuple[int, ...]:
        """The schedule draws a run has made, without the zeros at the end: they are implied."""
        drawn = self.schedule[: self._at[SCHEDULE]]
        while drawn and drawn[-1] == 0:
            drawn.pop()
        return tuple(drawn)


def choices_from_bytes(data: bytes, bounds: Sequence[int]) -> list[int]:
    """Cut `data` into draws: one byte for a bound n <= 256, else two, big-endian."""
    draws, at = [], 0
    for n in bounds:
        width = 1 if n <= 256 else 2
        if at + width > len(data):
            break
        draws.append(int.from_bytes(data[at : at + width], "big"))
        at += width
    return draws
