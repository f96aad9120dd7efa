"""mm/memory-failure.c: a page that the hardware complains of."""

from __future__ import annotations

from kstate.flags import EBUSY, ENOENT
from kstate.mm import huge_memory, memory, swap
from kstate.pageflags import (
    PageAnon,
    PageHuge,
    PageLRU,
    get_page_unless_zero,
    lock_page,
    unlock_page,
)
from kstate.structs import PRESENT, Kernel, MmStruct


def memory_failure(k: Kernel, mm: MmStruct, address: int) -> int:
    """Look at the page that `mm` has at an address, found by its number alone.

    Source:   mm/memory-failure.c memory_failure(), get_hwpoison_page(), shake_page(), v4.3.
    Context:  process context; **neither mmap_sem nor ptl is held**. Splits a huge page, and sleeps
              for the page lock.
    Returns:  0; -ENOENT: nothing mapped, or free by now; -EBUSY: a huge page that was not split, or
              belongs to nobody any more, or yet.
    Left out: all that comes after: PG_hwpoison, unmapping, killing.
    """
    value = memory.pte_offset(mm, address).value
    page = value.page  # only a number to start from
    if value.kind != PRESENT or page is None or not get_page_unless_zero(page):
        return ENOENT
    if page.nr_pages > 1:
        if not PageAnon(page) or huge_memory.split_huge_page(k, page):
            swap.put_page(k, page)
            return EBUSY
    if not PageHuge(page) and not PageLRU(page):
        swap.lru_add_drain_all(k)
    lock_page(page)
    unlock_page(page)
    swap.put_page(k, page)
    return 0
