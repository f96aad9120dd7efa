"""mm/vmscan.c: taking pages off the LRU and putting them back; reclaim of file pages."""

from __future__ import annotations

from kstate.flags import (
    EBUSY,
    LRU_INACTIVE_FILE,
    NR_ISOLATED_ANON,
    NR_ISOLATED_FILE,
    SWAP_AGAIN,
    SWAP_FAIL,
    SWAP_MLOCK,
    TTU_UNMAP,
    UNEVICTABLE_PGCULLED,
    UNEVICTABLE_PGRESCUED,
    VM_LOCKED,
    PG_active,
    PG_locked,
    PG_lru,
    PG_unevictable,
)
from kstate.machine import spin_lock_irq, spin_unlock_irq
from kstate.mm import filemap, page_alloc, rmap, swap
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageActive,
    ClearPageLRU,
    ClearPageUnevictable,
    PageDirty,
    PageLRU,
    PageMlocked,
    PageSwapBacked,
    PageUnevictable,
    SetPageActive,
    SetPageLRU,
    SetPageReferenced,
    TestClearPageReferenced,
    clear_page_locked,
    get_page,
    get_page_unless_zero,
    page_freeze_refs,
    page_mapped,
    page_unfreeze_refs,
    put_page_testzero,
    trylock_page,
    unlock_page,
)
from kstate.structs import AddressSpace, Kernel, Page, Zone

KEEP, RECLAIM, ACTIVATE, CULL = 0, 1, 2, 3
SWAP_CLUSTER_MAX = 32


def page_evictable(page: Page) -> bool:
    """May reclaim have it? Tested without a lock.

    Source:   mm/vmscan.c page_evictable(), v4.3. Left out: AS_UNEVICTABLE.
    """
    return not PageMlocked(page)


def isolate_lru_page(k: Kernel, page: Page) -> int:
    """Take a page off its LRU list, with a reference.

    Source:   mm/vmscan.c isolate_lru_page(), v4.3.
    Context:  takes lru_lock; the caller holds a reference.
    Returns:  0, or -EBUSY: not on a list, or an injected fault `isolate_lru_page`.
    Bugs:     VM_BUG: refcount 0.
    """
    VM_BUG_ON_PAGE(page._refcount == 0, "vm-bug-isolate-lru-page", "!page_count(page)")
    if k.machine.fault("isolate_lru_page"):
        return EBUSY
    ret = EBUSY
    if PageLRU(page):
        zone = page.zone
        spin_lock_irq(zone.lru_lock)
        if PageLRU(page):
            lru = swap.page_lru(page)
            get_page(page)
            ClearPageLRU(page)
            swap.del_page_from_lru_list(page, zone, lru)
            ret = 0
        spin_unlock_irq(zone.lru_lock)
    return ret


def putback_lru_page(k: Kernel, page: Page) -> None:
    """Put an isolated page on the list it now belongs on, and drop the isolation's reference.

    Source:   mm/vmscan.c putback_lru_page(), v4.3.
    Context:  lru_lock not held; the page may be freed by this.
    Bugs:     VM_BUG: on the LRU.
    """
    was_unevictable = PageUnevictable(page)
    VM_BUG_ON_PAGE(page._flags & PG_lru != 0, "vm-bug-putback-lru-page", "PageLRU(page)")
    while True:
        ClearPageUnevictable(page)
        is_unevictable = not page_evictable(page)
        if not is_unevictable:
            swap.lru_cache_add(k, page)
            break
        swap.add_page_to_unevictable_list(page)
        # It may have become evictable before it was on the list; then nobody else will move it.
        if not page_evictable(page) or isolate_lru_page(k, page) != 0:
            break
        swap.put_page(k, page)
    if was_unevictable and not is_unevictable:
        k.count_vm_event(UNEVICTABLE_PGRESCUED)
    elif not was_unevictable and is_unevictable:
        k.count_vm_event(UNEVICTABLE_PGCULLED)
    swap.put_page(k, page)


def shrink_zone_inactive_file(k: Kernel, zone: Zone) -> int:
    """One round of direct reclaim over a zone's inactive file list.

    Source:   mm/vmscan.c shrink_inactive_list(), isolate_lru_pages(), v4.3.
    Context:  process context, no locks held.
    Returns:  pages freed.
    Bugs:     BUG: an unevictable page on an evictable list.
    Left out: the other lists, writeback, congestion, scan ratios.
    """
    swap.lru_add_drain(k)
    spin_lock_irq(zone.lru_lock)
    page_list: list[Page] = []
    for page in reversed(zone.lists[LRU_INACTIVE_FILE][-SWAP_CLUSTER_MAX:]):
        if __isolate_lru_page(page):
            swap.del_page_from_lru_list(page, zone, LRU_INACTIVE_FILE)
            page_list.append(page)
    zone.stat[NR_ISOLATED_FILE] += len(page_list)
    spin_unlock_irq(zone.lru_lock)
    if not page_list:
        return 0
    isolated = len(page_list)
    freed, kept = shrink_page_list(k, page_list, zone)
    spin_lock_irq(zone.lru_lock)
    to_free = putback_inactive_pages(k, zone, kept)
    zone.stat[NR_ISOLATED_FILE] -= isolated
    spin_unlock_irq(zone.lru_lock)
    for page in to_free:
        page_alloc.free_hot_cold_page(k, page)
    return freed


def __isolate_lru_page(page: Page) -> bool:
    """Take one page of an evictable list; the caller unlinks it.

    Source:   mm/vmscan.c __isolate_lru_page(), v4.3.
    Context:  lru_lock held.
    Returns:  False where it is being freed under us.
    Bugs:     VM_BUG: not PG_lru. BUG: unevictable.
    """
    BUG_ON(
        page._flags & PG_unevictable != 0, "bug-isolate-unevictable", "__isolate_lru_page -EINVAL"
    )
    VM_BUG_ON_PAGE(not page._flags & PG_lru, "vm-bug-isolate-lru-pages", "!PageLRU(page)")
    if not PageLRU(page) or not get_page_unless_zero(page):
        return False
    ClearPageLRU(page)
    return True


def putback_inactive_pages(k: Kernel, zone: Zone, pages: list[Page]) -> list[Page]:
    """Put back what reclaim did not free.

    Source:   mm/vmscan.c putback_inactive_pages(), v4.3.
    Context:  lru_lock held, dropped and retaken around an unevictable page.
    Returns:  pages whose last reference this was, to be freed by the caller.
    Bugs:     VM_BUG: on the LRU.
    """
    to_free: list[Page] = []
    for page in pages:
        VM_BUG_ON_PAGE(page._flags & PG_lru != 0, "vm-bug-putback-inactive-pages", "PageLRU(page)")
        if not page_evictable(page):
            spin_unlock_irq(zone.lru_lock)
            putback_lru_page(k, page)
            spin_lock_irq(zone.lru_lock)
            continue
        SetPageLRU(page)
        lru = swap.page_lru(page)
        swap.add_page_to_lru_list(page, zone, lru)
        if put_page_testzero(page):
            ClearPageLRU(page)
            ClearPageActive(page)
            swap.del_page_from_lru_list(page, zone, lru)
            to_free.append(page)
    return to_free


def shrink_page_list(k: Kernel, page_list: list[Page], zone: Zone) -> tuple[int, list[Page]]:
    """Try to free each page of a batch.

    Source:   mm/vmscan.c shrink_page_list(), v4.3, as direct reclaim reaches it for file pages.
    Context:  the pages are isolated; takes each page's lock by trylock.
    Returns:  (pages freed, pages to put back).
    Bugs:     VM_BUG: an active page to shrink; a kept page on the LRU or unevictable.
    Left out: anonymous pages and swap, writeback, dirty pages (kept), buffers.
    """
    kept: list[Page] = []
    freed: list[Page] = []
    for page in page_list:
        if not trylock_page(page):
            _check_kept(page)
            kept.append(page)
            continue
        VM_BUG_ON_PAGE(
            page._flags & PG_active != 0, "vm-bug-shrink-page-list-active", "PageActive(page)"
        )
        if not page_evictable(page):
            unlock_page(page)
            kept.append(page)  # culled: its putback finds it unevictable
            continue
        outcome = _try_to_reclaim(k, page)
        if outcome == RECLAIM:
            freed.append(page)
            continue
        if outcome == ACTIVATE:
            SetPageActive(page)
        unlock_page(page)
        if outcome != CULL:
            _check_kept(page)
        kept.append(page)
    for page in freed:
        page_alloc.free_hot_cold_page(k, page)
    return len(freed), kept


def _check_kept(page: Page) -> None:
    VM_BUG_ON_PAGE(
        page._flags & (PG_lru | PG_unevictable) != 0,
        "vm-bug-shrink-page-list-kept",
        "PageLRU(page) || PageUnevictable(page)",
    )


def _try_to_reclaim(k: Kernel, page: Page) -> int:
    """The part of shrink_page_list between the page lock and its fate.

    Returns:  RECLAIM: it has no reference and no lock left. KEEP, ACTIVATE or CULL: still locked.
    """
    references = page_check_references(k, page)
    if references != RECLAIM:
        return references
    mapping = page.mapping
    if page_mapped(page) and mapping is not None:
        ret = rmap.try_to_unmap(k, page, TTU_UNMAP)
        if ret == SWAP_FAIL:
            return ACTIVATE
        if ret == SWAP_MLOCK:
            return CULL
        if ret == SWAP_AGAIN:
            return KEEP
    if PageDirty(page):
        return KEEP
    if not isinstance(mapping, AddressSpace) or not __remove_mapping(k, mapping, page):
        return KEEP
    clear_page_locked(page)
    return RECLAIM


def page_check_references(k: Kernel, page: Page) -> int:
    """Has the page been used since reclaim last looked?

    Source:   mm/vmscan.c page_check_references(), v4.3.
    Context:  page locked.
    Returns:  RECLAIM (also for a VM_LOCKED mapping: try_to_unmap will cull it), KEEP or ACTIVATE.
    Left out: executable pages.
    """
    referenced_ptes, vm_flags = rmap.page_referenced(k, page)
    referenced_page = TestClearPageReferenced(page)
    if vm_flags & VM_LOCKED:
        return RECLAIM
    if referenced_ptes:
        if PageSwapBacked(page):
            return ACTIVATE
        SetPageReferenced(page)
        if referenced_page or referenced_ptes > 1:
            return ACTIVATE
        return KEEP
    return RECLAIM


def __remove_mapping(k: Kernel, mapping: AddressSpace, page: Page) -> bool:
    """Take a clean page that nobody else refers to out of its page cache.

    Source:   mm/vmscan.c __remove_mapping(), v4.3.
    Context:  page locked; takes tree_lock. On success the page's count stays frozen at 0.
    Bugs:     BUG: page not locked; mapping is not the page's.
    Left out: shadow entries, swap cache.
    """
    BUG_ON(not page._flags & PG_locked, "bug-remove-mapping-unlocked", "!PageLocked(page)")
    BUG_ON(
        page._mapping is not mapping, "bug-remove-mapping-other", "mapping != page_mapping(page)"
    )
    spin_lock_irq(mapping.tree_lock)
    if not page_freeze_refs(page, 2):
        spin_unlock_irq(mapping.tree_lock)
        return False
    if PageDirty(page):
        page_unfreeze_refs(page, 2)
        spin_unlock_irq(mapping.tree_lock)
        return False
    filemap.__delete_from_page_cache(mapping, page)
    spin_unlock_irq(mapping.tree_lock)
    return True


def isolated_counter(page: Page) -> int:
    """NR_ISOLATED_ANON or NR_ISOLATED_FILE, by what the page is now."""
    return NR_ISOLATED_FILE if swap.page_is_file_cache(page) else NR_ISOLATED_ANON
