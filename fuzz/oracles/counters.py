"""Counters that are sums of something: rss, zone counters, swap counts, anon_vma references."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.flags import (
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SWAPENTS,
    NR_FILE_DIRTY,
    NR_FILE_PAGES,
    NR_ISOLATED_ANON,
    NR_ISOLATED_FILE,
    NR_SHMEM,
    NR_WRITEBACK,
    PG_dirty,
    PG_head,
    PG_writeback,
)
from kstate.machine import Report
from kstate.structs import (
    NONE,
    SWAP,
    SWAP_HAS_CACHE,
    SWAP_MAP_SHMEM,
    AddressSpace,
    AnonVma,
    Kernel,
    MmStruct,
    Page,
)


class RssCountsPtes:
    """An address space's rss counters are what its ptes hold: file pages, anonymous pages, swap
    entries; a migration entry counts as the page it stands for. Huge pages are not counted.

    Invariant:   kernel-reference I8.
    Not checked: mid-run. At exit the kernel has a check of its own, bad-rss-counter.
    """

    id = "rss-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for mm in state.k.processes.values():
            counted = rss_of_ptes(mm)
            if counted != mm.rss:
                yield Report(
                    self.id,
                    f"rss of {mm.name} (file, anonymous, swap) is {mm.rss}, its ptes are {counted}",
                    "oracle",
                    (mm.label(),),
                )


def rss_of_ptes(mm: MmStruct) -> list[int]:
    counted = [0, 0, 0]
    for pte in mm.ptes.values():
        value = pte._value
        if value.kind == SWAP:
            counted[MM_SWAPENTS] += 1
        elif value.kind != NONE and value.page is not None and not value.page._flags & PG_head:
            file = isinstance(value.page._mapping, AddressSpace)
            counted[MM_FILEPAGES if file else MM_ANONPAGES] += value.page.nr_pages
    return counted


class ZoneCountersAreRecounts:
    """NR_FILE_PAGES, NR_SHMEM, NR_FILE_DIRTY and NR_WRITEBACK of a zone are what a recount gives;
    nothing is left isolated.

    Invariant:   kernel-reference I10.
    Not checked: mid-run; single zones where pages of both would only be exchanged.
    """

    id = "zone-counter-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        k = state.k
        counted = {
            counter: dict.fromkeys((zone.node for zone in k.zones), 0) for counter in _COUNTERS
        }
        for mapping in (*k.files.values(), k.swap.space):
            for page in mapping._page_tree.values():
                if isinstance(page, Page):
                    for counter in _counters_of(mapping, page):
                        counted[counter][page.zone.node] += 1
        for zone in k.zones:
            for counter, name in _COUNTERS.items():
                found = counted[counter][zone.node]
                if zone.stat[counter] != found:
                    yield Report(
                        self.id,
                        f"{name} of {zone.label()} is {zone.stat[counter]}, "
                        f"a recount gives {found}",
                        "oracle",
                        (zone.label(),),
                    )


_COUNTERS = {
    NR_FILE_PAGES: "NR_FILE_PAGES",
    NR_SHMEM: "NR_SHMEM",
    NR_FILE_DIRTY: "NR_FILE_DIRTY",
    NR_WRITEBACK: "NR_WRITEBACK",
    NR_ISOLATED_ANON: "NR_ISOLATED_ANON",
    NR_ISOLATED_FILE: "NR_ISOLATED_FILE",
}


def _counters_of(mapping: AddressSpace, page: Page) -> Iterator[int]:
    yield NR_FILE_PAGES
    if mapping.shmem:
        yield NR_SHMEM
    if mapping.accounts_dirty and page._flags & PG_dirty:
        yield NR_FILE_DIRTY
    if page._flags & PG_writeback:
        yield NR_WRITEBACK


class SwapCountsAreReferences:
    """A swap slot's count is the number of ptes that hold its entry, or says that a file does; it
    says it is in the swap cache where it is.

    Invariant:   mm/swapfile.c swap_map, v4.3.
    Not checked: mid-run.
    """

    id = "swap-count-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        swap = state.k.swap
        counted = dict.fromkeys(swap.space._page_tree, SWAP_HAS_CACHE)
        for mm in state.k.processes.values():
            for pte in mm.ptes.values():
                if pte._value.kind == SWAP:
                    slot = pte._value.swap
                    counted[slot] = counted.get(slot, 0) + 1
        for mapping in state.k.files.values():
            for entry in mapping._page_tree.values():
                if mapping.shmem and isinstance(entry, int):
                    counted[entry] = counted.get(entry, 0) + SWAP_MAP_SHMEM
        for slot in sorted(counted.keys() | swap._swap_map.keys()):
            found, expected = swap._swap_map.get(slot, 0), counted.get(slot, 0)
            if found != expected:
                yield Report(
                    self.id,
                    f"swap slot {slot} counts {_swap_map_text(found)}, "
                    f"there are {_swap_map_text(expected)}",
                    "oracle",
                    (swap.label(),),
                )


def _swap_map_text(value: int) -> str:
    count = value & ~SWAP_HAS_CACHE
    references = "a file" if count == SWAP_MAP_SHMEM else f"{count} ptes"
    return references + (" and the swap cache" if value & SWAP_HAS_CACHE else "")


class AnonVmaReferencesAreStructural:
    """An anon_vma has one reference while vmas hang on it, one for each place of it that ksmd has
    merged, and a root one more for each anon_vma of its tree that is not freed.

    Invariant:   kernel-reference I15.
    Not checked: mid-run, where migration and page_lock_anon_vma_read hold some.
    """

    id = "anon-vma-refcount-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        all_of_them = [thing for thing in state.k.machine.objects if isinstance(thing, AnonVma)]
        items = state.k.ksm.rmap_items.values() if state.k.ksm else ()
        merged = [item.anon_vma for item in items if item.anon_vma is not None]
        for anon_vma in all_of_them:
            expected = (1 if anon_vma.vmas else 0) + merged.count(anon_vma)
            expected += sum(
                1
                for other in all_of_them
                if other.root is anon_vma
                and other is not anon_vma
                and (other.vmas or other in merged)
            )
            if anon_vma._refcount != expected:
                yield Report(
                    self.id,
                    f"{anon_vma.label()} has {anon_vma._refcount} references, {expected} are "
                    "accounted for",
                    "oracle",
                    (anon_vma.label(),),
                )
