"""mm/compaction.c: moving pages together; the one user of put_new_page in the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field

from kstate.flags import ENOMEM, MIGRATE_SYNC, NR_ISOLATED_ANON, NR_ISOLATED_FILE
from kstate.machine import (
    look,
    spin_lock_irq,
    spin_unlock_irq,
)
from kstate.mm import balloon_compaction, migrate, page_alloc, swap, util
from kstate.pageflags import (
    ClearPageLRU,
    PageLRU,
    get_page_unless_zero,
    page_count,
    page_mapcount,
    put_page_testzero,
)
from kstate.structs import Kernel, Page, Zone, take_top_free_page


@dataclass
class CompactControl:
    """struct compact_control. freepages: taken off the zone's free list, to be migrated to."""

    zone: Zone
    migrate_pfn: int
    freepages: list[Page] = field(default_factory=list)


def compact_zone(k: Kernel, zone: Zone) -> int:
    """Migrate every page of a zone that is on the LRU to a free page further up.

    Source:   mm/compaction.c compact_zone(), v4.3, as /proc/sys/vm/compact_memory reaches it.
    Context:  process context; **mmap_sem is not held**: pages are found by their number.
    Returns:  pages migrated.
    Left out: page blocks, orders, skip hints, contention, deferral.
    """
    swap.lru_add_drain_all(k)
    cc = CompactControl(zone, -1)
    migrated = 0
    while (page := next_page(k, cc)) is not None:
        cc.migrate_pfn = page.pfn
        pages = isolate_migratepages(k, cc, page)
        if not pages:
            continue
        failed, _ = migrate.migrate_pages(
            k,
            pages,
            lambda page: compaction_alloc(k, cc),
            lambda page: compaction_free(k, cc, page),
            MIGRATE_SYNC,
        )
        migrated += not failed
        if failed:
            migrate.putback_movable_pages(k, pages)
        if failed == ENOMEM:
            break  # the scanners have met
    release_freepages(k, cc)
    return migrated


def next_page(k: Kernel, cc: CompactControl) -> Page | None:
    """The next page of the zone, by number; what was never handed out is free. No step.

    Source:   mm/compaction.c isolate_migratepages(), v4.3."""
    look(cc.zone, "free_list")
    pfns = (pfn for pfn, page in k.pages.items() if page.zone is cc.zone and pfn > cc.migrate_pfn)
    return k.pages.get(min(pfns, default=-1))


def isolate_migratepages(k: Kernel, cc: CompactControl, page: Page) -> list[Page]:
    """Take one page off the LRU, if it is on it and nobody has pinned it; or out of the balloon.

    Source:   mm/compaction.c isolate_migratepages_block(), v4.3.
    Context:  takes lru_lock; the page is looked at without a reference first.
    """
    if not PageLRU(page):
        return isolate_balloon_page(k, page)
    if page.nr_pages > 1:
        return []
    if util.page_mapping(k, page) is None and page_count(page) > page_mapcount(page):
        return []  # an anonymous page that somebody has pinned would not move
    zone = cc.zone
    taken: list[Page] = []
    spin_lock_irq(zone.lru_lock)
    if PageLRU(page) and page.nr_pages == 1 and get_page_unless_zero(page):
        lru = swap.page_lru(page)
        ClearPageLRU(page)
        swap.del_page_from_lru_list(page, zone, lru)
        file = swap.page_is_file_cache(page)
        zone.stat[NR_ISOLATED_FILE if file else NR_ISOLATED_ANON] += 1
        taken.append(page)
    spin_unlock_irq(zone.lru_lock)
    return taken


def isolate_balloon_page(k: Kernel, page: Page) -> list[Page]:
    """A page off the LRU may be a balloon's, and then it can be moved too.

    Source:   mm/compaction.c isolate_migratepages_block(), acct_isolated(), v4.3.
    """
    if not balloon_compaction.balloon_page_movable(page):
        return []
    if not balloon_compaction.balloon_page_isolate(k, page):
        return []
    page.zone.stat[NR_ISOLATED_FILE] += 1
    return [page]


def compaction_alloc(k: Kernel, cc: CompactControl) -> Page | None:
    """new_page_t: a free page from the top of the zone, or one given back.

    Source:   mm/compaction.c compaction_alloc(), isolate_freepages(), v4.3.
    Returns:  None where the scanners have met.
    """
    if not cc.freepages:
        page = take_top_free_page(k, cc.zone, cc.migrate_pfn)
        if page is None:
            return None
        cc.freepages.append(page)
    newpage = cc.freepages.pop(0)
    k.machine.note("pool-get", newpage)
    return newpage


def compaction_free(k: Kernel, cc: CompactControl, page: Page) -> None:
    """free_page_t: keep an unused page for the next. Source: mm/compaction.c, v4.3."""
    k.machine.note("pool-put", page)
    cc.freepages.insert(0, page)


def release_freepages(k: Kernel, cc: CompactControl) -> None:
    """Give the rest back. Source: mm/compaction.c release_freepages(), v4.3: __free_page(), which
    does not look at the LRU."""
    for page in cc.freepages:
        if put_page_testzero(page):
            page_alloc.free_hot_cold_page(k, page)
    cc.freepages = []
