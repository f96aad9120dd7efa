"""mm/vmscan.c: taking pages off the LRU and putting them back; reclaim of file pages."""

from __future__ import annotations

from kstate.flags import (
    EBUSY,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
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
from kstate.fs import buffer, fuse
from kstate.machine import (
    look,
    spin_lock_irq,
    spin_unlock_irq,
    touch,
)
from kstate.mm import (
    filemap,
    memcontrol,
    page_alloc,
    page_io,
    page_writeback,
    rmap,
    shmem,
    swap,
    swap_state,
    swapfile,
    util,
)
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageActive,
    ClearPageDirty,
    ClearPageLRU,
    ClearPageReclaim,
    ClearPageUnevictable,
    PageAnon,
    PageDirty,
    PageLRU,
    PageMlocked,
    PageReclaim,
    PageSwapBacked,
    PageSwapCache,
    PageUnevictable,
    PageWriteback,
    SetPageActive,
    SetPageLRU,
    SetPageReclaim,
    SetPageReferenced,
    TestClearPageReferenced,
    clear_page_locked,
    get_page,
    get_page_unless_zero,
    page_count,
    page_freeze_refs,
    page_mapped,
    page_private_refs,
    page_unfreeze_refs,
    peek,
    put_page_testzero,
    trylock_page,
    unlock_page,
    wait_on_page_writeback,
)
from kstate.structs import AddressSpace, Kernel, Page, Zone

KEEP, RECLAIM, RECLAIM_CLEAN, ACTIVATE, CULL, KEEP_UNLOCKED, SUCCESS, CLEAN, GONE = range(9)
SWAP_CLUSTER_MAX = 32
DEF_PRIORITY = 12
MEM_CGROUP_RECLAIM_RETRIES = 1  # the kernel's 5 give nothing more on lists this short
SWAPPINESS = 60


def page_evictable(k: Kernel, page: Page) -> bool:
    """May reclaim have it? Tested without a lock.

    Source:   mm/vmscan.c page_evictable(), v4.3.
    Left out: AS_UNEVICTABLE, and with it the look at the page's mapping.
    """
    return not PageMlocked(page)


def isolate_lru_page(k: Kernel, page: Page) -> int:
    """Take a page off its LRU list, with a reference.

    Source:   mm/vmscan.c isolate_lru_page(), v4.3.
    Context:  takes lru_lock; the caller holds a reference.
    Returns:  0, or -EBUSY: not on a list, or an injected fault `isolate_lru_page`.
    Bugs:     VM_BUG: refcount 0.
    """
    look(page, "refcount")
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
    VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-putback-lru-page", "PageLRU(page)")
    while True:
        ClearPageUnevictable(page)
        is_unevictable = not page_evictable(k, page)
        if not is_unevictable:
            swap.lru_cache_add(k, page)
            break
        swap.add_page_to_unevictable_list(page)
        # It may have become evictable before it was on the list; then nobody else will move it.
        if not page_evictable(k, page) or isolate_lru_page(k, page) != 0:
            break
        swap.put_page(k, page)
    if was_unevictable and not is_unevictable:
        k.count_vm_event(UNEVICTABLE_PGRESCUED)
    elif not was_unevictable and is_unevictable:
        k.count_vm_event(UNEVICTABLE_PGCULLED)
    swap.put_page(k, page)


def mem_cgroup_force_empty(k: Kernel) -> int:
    """0 written to memory.force_empty: reclaim all that can be reclaimed.

    Source:   mm/memcontrol.c mem_cgroup_force_empty(), v4.3.  Context: sleeps.
    Returns:  0.
    """
    swap.lru_add_drain_all(k)
    retries = MEM_CGROUP_RECLAIM_RETRIES
    while retries:
        if not try_to_free_mem_cgroup_pages(k):
            retries -= 1
    return 0


def try_to_free_mem_cgroup_pages(k: Kernel) -> int:
    """Direct reclaim of the one group all processes are in.

    Source:   mm/vmscan.c try_to_free_mem_cgroup_pages(), do_try_to_free_pages(), v4.3.
    Context:  sleeps.                          Returns: pages freed.
    Left out: mem_cgroup_low(). The flusher threads that it wakes do their work on the spot.
    """
    freed = total_scanned = 0
    # A second time if the first gave nothing: that is for groups with reserves, but done for all.
    for priority in (*range(DEF_PRIORITY, -1, -1), *range(DEF_PRIORITY, -1, -1)):
        if priority == DEF_PRIORITY and freed:
            break
        for zone in k.zones:
            reclaimed, scanned = shrink_lruvec(k, zone, priority)
            freed += reclaimed
            total_scanned += scanned
        if freed >= SWAP_CLUSTER_MAX:
            break
        if total_scanned > SWAP_CLUSTER_MAX + SWAP_CLUSTER_MAX // 2:
            wakeup_flusher_threads(k)
    return freed


def wakeup_flusher_threads(k: Kernel) -> None:
    """Write back dirty files, waiting for nothing that is being written.

    Source:   fs/fs-writeback.c wakeup_flusher_threads(), wb_start_writeback(), v4.3."""
    for mapping in list(k.files.values()):
        page_writeback.do_writepages(k, mapping, sync=False)


def get_scan_count(zone: Zone, priority: int) -> list[int]:
    """How many pages of each evictable list to scan.

    Source:   mm/vmscan.c get_scan_count(), v4.3, for a group, swappiness 60.
    Context:  no locks held; the lengths of the lists are looked at without a lock. No step.
    Args:     priority: 0: scan everything; else only file pages as long as there are enough
              inactive ones, and else in proportion to what scanning each kind has given. Where
              that comes to nothing at all, once more, with a batch of each short list.
    """
    lrus = (LRU_INACTIVE_ANON, LRU_ACTIVE_ANON, LRU_INACTIVE_FILE, LRU_ACTIVE_FILE)
    look(zone, "lru")
    touch(zone, "reclaim_stat")
    sizes = [zone.stat[lru] for lru in lrus]
    fractions, denominator = [1, 1], 1
    if priority and not inactive_list_is_low(zone, LRU_INACTIVE_FILE):
        fractions = [0, 1]
    elif priority:
        fractions = []
        for file, prio in enumerate((SWAPPINESS, 200 - SWAPPINESS)):
            if zone.recent_scanned[file] > sum(sizes[2 * file : 2 * file + 2]) // 4:
                zone.recent_scanned[file] //= 2
                zone.recent_rotated[file] //= 2
            scanned, rotated = zone.recent_scanned[file] + 1, zone.recent_rotated[file] + 1
            fractions.append(prio * scanned // rotated)
        denominator = sum(fractions) + 1
    counts = [size >> priority for size in sizes]
    forced = [size >> priority or min(size, SWAP_CLUSTER_MAX) for size in sizes]
    for scans in (counts, forced):
        scaled = [scan * fractions[at // 2] // denominator for at, scan in enumerate(scans)]
        if any(scaled):
            break
    return scaled


def shrink_lruvec(k: Kernel, zone: Zone, priority: int) -> tuple[int, int]:
    """One round over the lists of a zone.

    Source:   mm/vmscan.c shrink_lruvec(), shrink_list(), v4.3.
    Context:  no locks held.
    Returns:  (pages freed, pages scanned).
    Left out: stopping early after a full batch.
    """
    freed = scanned = 0
    counts = get_scan_count(zone, priority)
    if counts[LRU_INACTIVE_ANON] or counts[LRU_INACTIVE_FILE] or counts[LRU_ACTIVE_FILE]:
        for lru, count in enumerate(counts):
            if not count:
                continue
            if lru in (LRU_ACTIVE_ANON, LRU_ACTIVE_FILE):
                if inactive_list_is_low(zone, lru - LRU_ACTIVE_ANON):
                    shrink_active_list(k, zone, lru, count)
            else:
                some_freed, some_scanned = shrink_inactive_list(k, zone, lru, count)
                freed += some_freed
                scanned += some_scanned
    if inactive_list_is_low(zone, LRU_INACTIVE_ANON):
        shrink_active_list(k, zone, LRU_ACTIVE_ANON)
    return freed, scanned


def inactive_list_is_low(zone: Zone, lru: int) -> bool:
    """Source: mm/vmscan.c inactive_list_is_low(), v4.3, for lists this short. No step."""
    look(zone, "lru")
    return zone.stat[lru + LRU_ACTIVE_ANON] > zone.stat[lru]


def shrink_active_list(k: Kernel, zone: Zone, lru: int, count: int = SWAP_CLUSTER_MAX) -> None:
    """Move pages from an active list to the inactive one.

    Source:   mm/vmscan.c shrink_active_list(), move_active_pages_to_lru(), v4.3.
    Context:  no locks held; a plain anonymous page is looked at without its page lock.
    Bugs:     VM_BUG: on the LRU.
    Left out: executable pages, which may stay active.
    """
    swap.lru_add_drain(k)
    spin_lock_irq(zone.lru_lock)
    held = isolate_lru_pages(zone, lru, count)
    file = lru >= LRU_INACTIVE_FILE
    isolated = NR_ISOLATED_FILE if file else NR_ISOLATED_ANON
    taken = len(held)
    touch(zone, "reclaim_stat")
    zone.recent_scanned[file] += taken
    zone.stat[isolated] += taken
    spin_unlock_irq(zone.lru_lock)
    inactive: list[Page] = []
    for page in held:
        if not page_evictable(k, page):
            putback_lru_page(k, page)
            continue
        if rmap.page_referenced(k, page, False)[0]:
            touch(zone, "reclaim_stat")
            zone.recent_rotated[file] += 1
        ClearPageActive(page)
        inactive.append(page)
    to_free: list[Page] = []
    spin_lock_irq(zone.lru_lock)
    for page in inactive:
        VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-move-active-pages", "PageLRU(page)")
        SetPageLRU(page)
        swap.add_page_to_lru_list(page, zone, lru - LRU_ACTIVE_ANON)
        if put_page_testzero(page):
            ClearPageLRU(page)
            ClearPageActive(page)
            swap.del_page_from_lru_list(page, zone, lru - LRU_ACTIVE_ANON)
            to_free.append(page)
    zone.stat[isolated] -= taken
    spin_unlock_irq(zone.lru_lock)
    for page in to_free:
        memcontrol.mem_cgroup_uncharge(page)
        page_alloc.free_hot_cold_page(k, page)


def isolate_lru_pages(zone: Zone, lru: int, count: int) -> list[Page]:
    """Take a batch off the tail of a list.

    Source:   mm/vmscan.c isolate_lru_pages(), v4.3.           Context: lru_lock held.
    """
    taken: list[Page] = []
    for page in reversed(zone.lists[lru][-count:]):
        if __isolate_lru_page(page):
            swap.del_page_from_lru_list(page, zone, lru)
            taken.append(page)
    return taken


def shrink_inactive_list(
    k: Kernel, zone: Zone, lru: int, count: int = SWAP_CLUSTER_MAX
) -> tuple[int, int]:
    """One round of direct reclaim over an inactive list.

    Source:   mm/vmscan.c shrink_inactive_list(), v4.3.
    Context:  process context, no locks held.  Args: lru: LRU_INACTIVE_ANON or LRU_INACTIVE_FILE.
    Returns:  (pages freed, pages scanned; a mapped page counts twice).
    Left out: congestion.
    """
    swap.lru_add_drain(k)
    file = lru == LRU_INACTIVE_FILE
    isolated = NR_ISOLATED_FILE if file else NR_ISOLATED_ANON
    spin_lock_irq(zone.lru_lock)
    page_list = isolate_lru_pages(zone, lru, count)
    taken = len(page_list)
    zone.stat[isolated] += taken
    spin_unlock_irq(zone.lru_lock)
    if not page_list:
        return 0, 0
    freed, scanned, kept = shrink_page_list(k, page_list, zone)
    spin_lock_irq(zone.lru_lock)
    touch(zone, "reclaim_stat")
    zone.recent_scanned[file] += taken
    to_free = putback_inactive_pages(k, zone, kept)
    zone.stat[isolated] -= taken
    spin_unlock_irq(zone.lru_lock)
    for page in to_free:
        memcontrol.mem_cgroup_uncharge(page)
        page_alloc.free_hot_cold_page(k, page)
    return freed, scanned


def __isolate_lru_page(page: Page) -> bool:
    """Take one page of an evictable list; the caller unlinks it.

    Source:   mm/vmscan.c __isolate_lru_page(), v4.3.
    Context:  lru_lock held.
    Returns:  False where it is being freed under us.
    Bugs:     VM_BUG: not PG_lru. BUG: unevictable.
    """
    BUG_ON(peek(page, PG_unevictable) != 0, "bug-isolate-unevictable", "__isolate_lru_page -EINVAL")
    VM_BUG_ON_PAGE(not peek(page, PG_lru), "vm-bug-isolate-lru-pages", "!PageLRU(page)")
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
        VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-putback-inactive-pages", "PageLRU(page)")
        if not page_evictable(k, page):
            spin_unlock_irq(zone.lru_lock)
            putback_lru_page(k, page)
            spin_lock_irq(zone.lru_lock)
            continue
        SetPageLRU(page)
        lru = swap.page_lru(page)
        swap.add_page_to_lru_list(page, zone, lru)
        if lru in (LRU_ACTIVE_ANON, LRU_ACTIVE_FILE):
            touch(zone, "reclaim_stat")
            zone.recent_rotated[lru == LRU_ACTIVE_FILE] += 1
        if put_page_testzero(page):
            ClearPageLRU(page)
            ClearPageActive(page)
            swap.del_page_from_lru_list(page, zone, lru)
            to_free.append(page)
    return to_free


def shrink_page_list(k: Kernel, page_list: list[Page], zone: Zone) -> tuple[int, int, list[Page]]:
    """Try to free each page of a batch.

    Source:   mm/vmscan.c shrink_page_list(), v4.3, as direct reclaim of a group reaches it.
    Context:  the pages are isolated; takes each page's lock by trylock.
    Returns:  (pages freed, pages scanned, pages to put back).
    Bugs:     VM_BUG: an active page to shrink; a kept page on the LRU or unevictable.
    Left out: congestion, flusher threads.
    """
    kept: list[Page] = []
    freed: list[Page] = []
    waiting = list(page_list)
    scanned = gone = 0
    while waiting:
        page = waiting.pop(0)
        if not trylock_page(page):
            _check_kept(page)
            kept.append(page)
            continue
        VM_BUG_ON_PAGE(
            peek(page, PG_active) != 0, "vm-bug-shrink-page-list-active", "PageActive(page)"
        )
        scanned += 1
        outcome = CULL
        if page_evictable(k, page):
            scanned += page_mapped(page) or PageSwapCache(page)
            if PageWriteback(page) and PageReclaim(page):
                unlock_page(page)
                wait_on_page_writeback(page)
                waiting.insert(0, page)
                continue
            outcome = _try_to_reclaim(k, page)
        if outcome == RECLAIM:
            freed.append(page)
            continue
        if outcome == GONE:  # whoever has the last reference frees it
            gone += 1
            continue
        if outcome == CULL:
            if PageSwapCache(page):
                swapfile.try_to_free_swap(k, page)
            unlock_page(page)
            kept.append(page)  # its putback finds it unevictable
            continue
        if outcome == ACTIVATE:
            if PageSwapCache(page) and swapfile.vm_swap_full(k):
                swapfile.try_to_free_swap(k, page)
            SetPageActive(page)
        if outcome != KEEP_UNLOCKED:
            unlock_page(page)
        _check_kept(page)
        kept.append(page)
    for page in freed:
        memcontrol.mem_cgroup_uncharge(page)
        page_alloc.free_hot_cold_page(k, page)
    return len(freed) + gone, scanned, kept


def _check_kept(page: Page) -> None:
    VM_BUG_ON_PAGE(
        peek(page, PG_lru | PG_unevictable) != 0,
        "vm-bug-shrink-page-list-kept",
        "PageLRU(page) || PageUnevictable(page)",
    )


def _try_to_reclaim(k: Kernel, page: Page) -> int:
    """The part of shrink_page_list between the page lock and its fate.

    Returns:  RECLAIM: it has no reference and no lock left. KEEP, ACTIVATE or CULL: still locked.
              KEEP_UNLOCKED. GONE: our reference is dropped.
    """
    mapping = util.page_mapping(k, page)
    if PageWriteback(page):
        SetPageReclaim(page)
        return KEEP
    references = page_check_references(k, page)
    if references in (KEEP, ACTIVATE):
        return references
    if PageAnon(page) and not PageSwapCache(page):
        if not swap_state.add_to_swap(k, page):
            return ACTIVATE
        mapping = util.page_mapping(k, page)
    if page_mapped(page) and mapping is not None:
        ret = rmap.try_to_unmap(k, page, TTU_UNMAP)
        if ret == SWAP_FAIL:
            return ACTIVATE
        if ret == SWAP_MLOCK:
            return CULL
        if ret == SWAP_AGAIN:
            return KEEP
    if PageDirty(page):
        if swap.page_is_file_cache(page):
            SetPageReclaim(page)  # the flusher's to write
            return KEEP
        if references == RECLAIM_CLEAN:
            return KEEP
        written = pageout(k, page, mapping)
        if written in (KEEP, ACTIVATE):
            return written
        if written == SUCCESS:
            if PageWriteback(page) or PageDirty(page):
                return KEEP_UNLOCKED
            if not trylock_page(page):
                return KEEP_UNLOCKED
            if PageDirty(page) or PageWriteback(page):
                return KEEP
            mapping = util.page_mapping(k, page)
    if page_private_refs(page):
        if not buffer.try_to_release_page(k, page):
            return ACTIVATE
        if mapping is None and page_count(page) == 1:
            unlock_page(page)
            return RECLAIM if put_page_testzero(page) else GONE  # truncated, with its buffers
    if mapping is None or not __remove_mapping(k, mapping, page, reclaimed=True):
        return KEEP
    clear_page_locked(page)
    return RECLAIM


def pageout(k: Kernel, page: Page, mapping: AddressSpace | None) -> int:
    """Write out a dirty page: of swap or tmpfs, or one that only looks like it (11c).

    Source:   mm/vmscan.c pageout(), is_page_cache_freeable(), v4.3.
    Context:  page locked, unmapped.
    Returns:  KEEP, ACTIVATE: still locked. SUCCESS: I/O was started, unlocked. CLEAN: it was clean.
    """
    if page_count(page) - page_private_refs(page) != 2:
        return KEEP
    if mapping is None:
        if page_private_refs(page) and buffer.try_to_free_buffers(k, page):
            ClearPageDirty(page)  # truncated, with its buffers
            return CLEAN
        return KEEP
    if not mapping.has_writepage:
        return ACTIVATE
    if not page_writeback.clear_page_dirty_for_io(k, page):
        return CLEAN
    SetPageReclaim(page)
    if mapping is k.swap.space:
        page_io.swap_writepage(k, page)
    elif mapping.fs == "fuse":
        fuse.fuse_writepage(k, mapping, page)
    elif mapping.fs == "ext2":
        buffer.block_write_full_page(k, mapping, page, sync=False)
    elif not shmem.shmem_writepage(k, mapping, page):
        ClearPageReclaim(page)
        return ACTIVATE
    if not PageWriteback(page):
        ClearPageReclaim(page)
    return SUCCESS


def page_check_references(k: Kernel, page: Page) -> int:
    """Has the page been used since reclaim last looked?

    Source:   mm/vmscan.c page_check_references(), v4.3.
    Context:  page locked.
    Returns:  RECLAIM (also for a VM_LOCKED mapping: try_to_unmap will cull it), RECLAIM_CLEAN,
              KEEP or ACTIVATE.
    Left out: executable pages.
    """
    referenced_ptes, vm_flags = rmap.page_referenced(k, page, True)
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
    if referenced_page and not PageSwapBacked(page):
        return RECLAIM_CLEAN
    return RECLAIM


def __remove_mapping(
    k: Kernel, mapping: AddressSpace, page: Page, *, reclaimed: bool = False
) -> bool:
    """Take a clean page that nobody else refers to out of its page cache or the swap cache.

    Source:   mm/vmscan.c __remove_mapping(), v4.3.
    Context:  page locked; takes tree_lock. On success the page's count stays frozen at 0.
    Bugs:     BUG: page not locked; mapping is not the page's.
    Left out: shadow entries.
    """
    BUG_ON(not peek(page, PG_locked), "bug-remove-mapping-unlocked", "!PageLocked(page)")
    BUG_ON(
        util.page_mapping(k, page) is not mapping,
        "bug-remove-mapping-other",
        "mapping != page_mapping(page)",
    )
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    spin_lock_irq(mapping.tree_lock)
    if not page_freeze_refs(page, 2):
        spin_unlock_irq(mapping.tree_lock)
        memcontrol.mem_cgroup_end_page_stat(page, memcg)
        return False
    if PageDirty(page):
        page_unfreeze_refs(page, 2)
        spin_unlock_irq(mapping.tree_lock)
        memcontrol.mem_cgroup_end_page_stat(page, memcg)
        return False
    k.machine.note("page-discarded", page, mapping)
    if PageSwapCache(page):
        slot = page.private
        swap_state.__delete_from_swap_cache(k, page)
        spin_unlock_irq(mapping.tree_lock)
        memcontrol.mem_cgroup_end_page_stat(page, memcg)
        swapfile.swapcache_free(k, slot)
        return True
    filemap.__delete_from_page_cache(k, mapping, page, reclaimed=reclaimed, memcg=memcg)
    spin_unlock_irq(mapping.tree_lock)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)
    return True


def remove_mapping(k: Kernel, mapping: AddressSpace, page: Page) -> bool:
    """Take a page out of its cache; the caller keeps its own reference.

    Source:   mm/vmscan.c remove_mapping(), v4.3.              Context: page locked.
    """
    if not __remove_mapping(k, mapping, page):
        return False
    page_unfreeze_refs(page, 1)
    return True


def isolated_counter(page: Page) -> int:
    """NR_ISOLATED_ANON or NR_ISOLATED_FILE, by what the page is now."""
    return NR_ISOLATED_FILE if swap.page_is_file_cache(page) else NR_ISOLATED_ANON
