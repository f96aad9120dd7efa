"""A user of migrate_pages with pages of its own: get_new_page and put_new_page from a pool.

Like Hugh Dickins' huge tmpfs (mail of 2015-11-08): pages of the pool may still be looked at, and
locked, by a task that found them before they went back to the pool. Not a file of the kernel's.
"""

from __future__ import annotations

from kstate.flags import EAGAIN, EBUSY, ENOENT, MIGRATE_SYNC, NR_ISOLATED_ANON, NR_ISOLATED_FILE
from kstate.machine import spin_lock, spin_lock_irq, spin_unlock, spin_unlock_irq
from kstate.mm import compaction, hugetlb, memory, migrate, swap
from kstate.pageflags import (
    ClearPageLRU,
    PageBalloon,
    PageHuge,
    PageLRU,
    get_page_unless_zero,
    lock_page,
    unlock_page,
)
from kstate.structs import PRESENT, Kernel, MmStruct, Page, Pool


def pool_of(k: Kernel, page: Page) -> Pool:
    """The pool whose pages are as huge as this one."""
    return hugetlb.hstate(k).pool if PageHuge(page) else k.pool


def pool_get_new_page(k: Kernel, page: Page) -> Page | None:
    """new_page_t: hand out the page given back last. Source: mm/compaction.c compaction_alloc()."""
    pool = pool_of(k, page)
    spin_lock(pool.lock)
    newpage = pool.free.pop(0) if pool.free else None
    spin_unlock(pool.lock)
    if newpage is not None:
        k.machine.note("pool-get", newpage)
    return newpage


def pool_put_new_page(k: Kernel, page: Page) -> None:
    """free_page_t: take an unused page back. Source: mm/compaction.c compaction_free()."""
    pool = pool_of(k, page)
    k.machine.note("pool-put", page)
    spin_lock(pool.lock)
    pool.free.insert(0, page)
    spin_unlock(pool.lock)


def pool_migrate(k: Kernel, mm: MmStruct, address: int) -> int:
    """Migrate the page that `mm` has at an address, found by its number as compaction finds it.

    Source:   mm/compaction.c compact_zone(), isolate_migratepages_block(), v4.3, for one page.
    Context:  process context; **mmap_sem is not held**; takes lru_lock.
    Returns:  0, -ENOENT: nothing mapped there; -EBUSY: not on the LRU; -EAGAIN: not migrated;
              -ENOMEM: the pool is empty.
    """
    value = memory.pte_offset(mm, address).value
    page = value.page  # only a number to start from: the page is checked from here on
    if value.kind != PRESENT or page is None:
        return ENOENT
    swap.lru_add_drain(k)
    pages: list[Page] = []
    zone = page.zone
    if not PageLRU(page):
        return EBUSY
    spin_lock_irq(zone.lru_lock)
    if PageLRU(page) and get_page_unless_zero(page):
        lru = swap.page_lru(page)
        ClearPageLRU(page)
        swap.del_page_from_lru_list(page, zone, lru)
        file = swap.page_is_file_cache(page)
        zone.stat[NR_ISOLATED_FILE if file else NR_ISOLATED_ANON] += 1
        pages.append(page)
    spin_unlock_irq(zone.lru_lock)
    if not pages:
        return EBUSY
    return _migrate_into_pool(k, pages)


def _migrate_into_pool(k: Kernel, pages: list[Page]) -> int:
    failed, _ = migrate.migrate_pages(
        k,
        pages,
        lambda old: pool_get_new_page(k, old),
        lambda new: pool_put_new_page(k, new),
        MIGRATE_SYNC,
    )
    if failed:
        migrate.putback_movable_pages(k, pages)
        return failed if failed < 0 else EAGAIN
    return 0


def balloon_migrate(k: Kernel) -> int:
    """Migrate the balloon page with the lowest number, found by it as compaction finds one.

    Source:   mm/compaction.c compact_zone(), isolate_migratepages_block(), v4.3, for one page.
    Context:  process context.
    Returns:  0; -ENOENT: the balloon is flat; -EBUSY: its pages are locked or isolated; -EAGAIN:
              not migrated; -ENOMEM: the pool is empty.
    """
    ballooned = sorted(pfn for pfn, page in k.pages.items() if PageBalloon(page))
    if not ballooned:
        return ENOENT
    for pfn in ballooned:
        pages = compaction.isolate_balloon_page(k, k.pages[pfn])
        if pages:
            return _migrate_into_pool(k, pages)
    return EBUSY


def huge_migrate(k: Kernel, mm: MmStruct, address: int) -> int:
    """Migrate the huge page that `mm` has at an address, found by its number.

    Source:   mm/memory-failure.c soft_offline_huge_page(), v4.3.
    Context:  process context; **mmap_sem is not held**; takes hugetlb_lock.
    Returns:  0; -ENOENT: no huge page mapped there; -EBUSY: isolated already; -EAGAIN: not
              migrated; -ENOMEM: the pool is empty.
    """
    value = memory.pte_offset(mm, address).value
    page = value.page
    if value.kind != PRESENT or page is None or not PageHuge(page):
        return ENOENT
    if not hugetlb.isolate_huge_page(k, page):
        return EBUSY
    return _migrate_into_pool(k, [page])


def pool_lookup(k: Kernel, pool: Pool, number: int) -> int:
    """Somebody who knew the pool's page from before looks at it: takes a reference unless it is
    free, locks it, looks, lets go.

    Source:   the shape of mm/memory-failure.c memory_failure(), v4.3, and of any stale lookup.
    Context:  sleeps for the page lock.
    Returns:  0, or -ENOENT: no such page, or it is free.
    """
    if number >= len(pool.members):
        return ENOENT
    page = pool.members[number]
    if not get_page_unless_zero(page):
        return ENOENT
    lock_page(page)
    unlock_page(page)
    swap.put_page(k, page)
    return 0
