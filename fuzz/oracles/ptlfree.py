"""Claims about ptes and their counts while a run goes on: whenever a ptl is let go.

Quiescent oracles see what is wrong at the end; these see what is wrong for a while. They look when
a task is about to unlock a ptl, for then all it did under it is done. Where another ptl is held as
well nothing is claimed: mappings are in the middle of a change then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from fuzz.oracles.counters import rss_of_ptes
from fuzz.oracles.refcount import wrong_mapcounts
from kstate.flags import MM_SWAPENTS
from kstate.machine import Operand, Point, Report, Task
from kstate.structs import PTL, Kernel


class _WhenPtlIsFree(ABC):
    """A claim asked at each unlock of a ptl that is the only one held; told once an object."""

    id = ""

    def attach(self, k: Kernel) -> None:
        self.k = k
        self.told: set[int] = set()
        k.machine.observe(self.look)

    def look(self, task: Task, point: Point, operand: Operand) -> None:
        """Called before each step."""
        if point.primitive is not PTL.unlock:
            return
        for mm in self.k.processes.values():
            if mm.page_table_lock.owner is not None and mm.page_table_lock is not operand:
                return
        for thing, text in self.wrong(self.k):
            if thing.id not in self.told:
                self.told.add(thing.id)
                when = f"{text}, when {task.name} is about to unlock {operand.label()}"
                task.machine.report(self.id, when, point.name.partition(" ")[0], thing)

    @abstractmethod
    def wrong(self, k: Kernel) -> Iterator[tuple[Operand, str]]:
        """(object, what is wrong with it) now."""

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from ()


class MapcountIsRightWhenPtlIsFree(_WhenPtlIsFree):
    """mapcount = present ptes that map the page, as at the end (MapcountIsNumberOfPtes).

    Invariant:   kernel-reference I6, mid-run.
    Not checked: while two ptls are held.
    Cost:        observes every step: not among the oracles of every run, see SLOW_ORACLES.
    """

    id = "mapcount-wrong-for-a-while"

    def wrong(self, k: Kernel) -> Iterator[tuple[Operand, str]]:
        yield from wrong_mapcounts(Snapshot(k))


class MappingsHaveReferences(_WhenPtlIsFree):
    """A page has at least as many references as ptes map it: a pte that maps a page without one
    would map it when it is freed.

    Invariant:   kernel-reference I7, mid-run, for those references that can be counted then.
    Not checked: while two ptls are held.
    Cost:        as MapcountIsRightWhenPtlIsFree.
    """

    id = "mapped-without-reference"

    def wrong(self, k: Kernel) -> Iterator[tuple[Operand, str]]:
        for pfn, ptes in Snapshot(k).mappings.items():
            page = k.pages[pfn]
            if page._refcount < len(ptes):
                references = f"{page._refcount} references, {len(ptes)} ptes map it"
                yield page, f"{page.label()} has {references}"


class RssIsRightWhenPtlIsFree(_WhenPtlIsFree):
    """rss counters are what the ptes hold. File and anonymous pages are counted together: which of
    them a migration entry's old page was cannot be seen while it is between its mappings.

    Invariant:   kernel-reference I8, mid-run.
    Not checked: while two ptls are held.
    Cost:        as MapcountIsRightWhenPtlIsFree.
    """

    id = "rss-wrong-for-a-while"

    def wrong(self, k: Kernel) -> Iterator[tuple[Operand, str]]:
        for mm in k.processes.values():
            held, counted = rss_of_ptes(mm), mm.rss
            if sum(held) != sum(counted) or held[MM_SWAPENTS] != counted[MM_SWAPENTS]:
                text = f"rss of {mm.name} (file, anonymous, swap) is {counted}, its ptes are {held}"
                yield mm, text
