"""The LRU lists agree with the flags."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.flags import (
    LRU_NAMES,
    LRU_UNEVICTABLE,
    PG_active,
    PG_lru,
    PG_mlocked,
    PG_swapbacked,
    PG_unevictable,
)
from kstate.machine import Report
from kstate.structs import Kernel, Page


class LruAgreesWithFlags:
    """PG_lru <=> linked, once, on the list its flags name; an evictable page is on no unevictable
    list; the counters are the lengths of the lists.

    Invariant:   kernel-reference I4.
    Not checked: mid-run; that a Mlocked page is on the unevictable list (reclaim sees to that).
    """

    id = "lru-inconsistent"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        found: dict[int, list[int]] = {}
        for zone in state.k.zones:
            for lru, pages in enumerate(zone.lists):
                if zone.stat[lru] != len(pages):
                    yield self._report(
                        f"{zone.label()} counts {zone.stat[lru]} pages "
                        f"{LRU_NAMES[lru]}, {len(pages)} are"
                    )
                for page in pages:
                    found.setdefault(page.pfn, []).append(lru)
        for page in state.k.pages.values():
            lists = found.get(page.pfn, [])
            wanted = [_list_of(page)] if page._flags & PG_lru else []
            if lists != wanted:
                yield self._report(
                    f"{page.label()} ({'|'.join(page.flag_names())}) is on "
                    f"{[LRU_NAMES[lru] for lru in lists] or 'no list'}, "
                    f"its flags say {[LRU_NAMES[lru] for lru in wanted] or 'none'}",
                    page,
                )
            elif LRU_UNEVICTABLE in lists and not page._flags & PG_mlocked:
                yield self._report(f"{page.label()} is evictable, but unevictable-listed", page)

    def _report(self, text: str, *pages: Page) -> Report:
        return Report(self.id, text, "oracle", tuple(page.label() for page in pages))


def _list_of(page: Page) -> int:
    if page._flags & PG_unevictable:
        return LRU_UNEVICTABLE
    return (0 if page._flags & PG_swapbacked else 2) + (1 if page._flags & PG_active else 0)
