"""What memory groups are charged, and what their pages are doing. Patches: P04, 0610c25daa3e."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.flags import (
    LRU_NAMES,
    MEM_CGROUP_STAT_CACHE,
    MEM_CGROUP_STAT_DIRTY,
    MEM_CGROUP_STAT_FILE_MAPPED,
    MEM_CGROUP_STAT_RSS,
    MEM_CGROUP_STAT_WRITEBACK,
    MEMCG_STAT_NAMES,
    NR_LRU_LISTS,
    NR_MEMCG_COUNTERS,
    PG_dirty,
    PG_swapcache,
    PG_writeback,
)
from kstate.machine import Report
from kstate.structs import ANON, AddressSpace, Kernel, MemCgroup, Page


class MemcgStatIsRecount:
    """DIRTY, FILE_MAPPED and WRITEBACK of a group are the numbers of its pages that are so.

    Invariant:   kernel-reference I16. A count below zero is told as such: the kernel, which adds
                 up unsigned longs, would throttle the group's writers.
    Not checked: mid-run, where a page's state changes before its count.
    Paired with: memcg-charge-mismatch.
    """

    id = "memcg-stat-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        counted = {memcg.name: [0] * NR_MEMCG_COUNTERS for memcg in state.k.memcgs}
        for page in state.in_use:
            if page._mem_cgroup is not None:
                for counter in _states(page):
                    counted[page._mem_cgroup.name][counter] += 1
        for memcg in state.k.memcgs:
            for counter in (
                MEM_CGROUP_STAT_DIRTY,
                MEM_CGROUP_STAT_FILE_MAPPED,
                MEM_CGROUP_STAT_WRITEBACK,
            ):
                yield from _compare(
                    self.id, memcg, counter, memcg.stat[counter], counted[memcg.name][counter]
                )


def _states(page: Page) -> Iterator[int]:
    """What of a page's state its group counts."""
    mapping = page._mapping
    if not isinstance(mapping, ANON) and page._mapcount > 0:
        yield MEM_CGROUP_STAT_FILE_MAPPED
    if isinstance(mapping, AddressSpace) and page._flags & (PG_dirty | PG_swapcache) == PG_dirty:
        if mapping.accounts_dirty:
            yield MEM_CGROUP_STAT_DIRTY
    if page._flags & PG_writeback:
        yield MEM_CGROUP_STAT_WRITEBACK


def _compare(id: str, memcg: MemCgroup, counter: int, says: int, counted: int) -> Iterator[Report]:
    if says != counted:
        below = ", below zero" if says < 0 else ""
        yield Report(
            id,
            f"{MEMCG_STAT_NAMES[counter]} of {memcg.name} is {says}{below}, "
            f"but {counted} of its pages are",
            "oracle",
            (memcg.name,),
        )


class ChargesAreConserved:
    """A group is charged for its pages, each once: memory = RSS + CACHE = pages charged to it.

    Invariant:   kernel-reference 4.16; three callers move a charge, none makes or loses one.
    Not checked: mid-run, where a page is charged before it is anybody's; the root group.
    """

    id = "memcg-charge-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        charged = {memcg.name: [0, 0] for memcg in state.k.memcgs}
        for page in state.k.pages.values():
            if page._mem_cgroup is not None:
                charged[page._mem_cgroup.name][isinstance(page._mapping, ANON)] += 1
        for memcg in state.k.memcgs:
            file, anon = charged[memcg.name]
            if memcg.memory != file + anon:
                yield Report(
                    self.id,
                    f"{memcg.name} is charged {memcg.memory} pages, it has {file + anon}",
                    "oracle",
                    (memcg.name,),
                )
            yield from _compare(
                self.id, memcg, MEM_CGROUP_STAT_CACHE, memcg.stat[MEM_CGROUP_STAT_CACHE], file
            )
            yield from _compare(
                self.id, memcg, MEM_CGROUP_STAT_RSS, memcg.stat[MEM_CGROUP_STAT_RSS], anon
            )


class LruSizeIsRecount:
    """lru_size of a group's list is the number of pages on it.

    Invariant:   kernel-reference I16. Below zero is a VM_BUG of the kernel's own (vm-bug-lru-size).
    Not checked: mid-run; which of two groups' lists a page is linked on: they are one list here.
    """

    id = "memcg-lru-size-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        names = ("the root group", "M0", "M1")
        for zone in state.k.zones:
            counted = [0] * len(zone.lru_size)
            for lru, pages in enumerate(zone.lists):
                for page in pages:
                    memcg = page._mem_cgroup
                    number = 0 if memcg is None else memcg.number
                    counted[number * NR_LRU_LISTS + lru] += 1
            if zone.lru_size == counted:
                continue
            for at, (says, are) in enumerate(zip(zone.lru_size, counted, strict=True)):
                if says != are:
                    yield Report(
                        self.id,
                        f"lru_size of {names[at // NR_LRU_LISTS]} on {zone.label()}: {says} pages "
                        f"{LRU_NAMES[at % NR_LRU_LISTS]}, {are} are",
                        "oracle",
                        (zone.label(),),
                    )
