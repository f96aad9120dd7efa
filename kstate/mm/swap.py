"""mm/swap.c: pagevecs on their way to the LRU, and dropping references."""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import (
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_UNEVICTABLE,
    NR_MLOCK,
    PAGEVEC_SIZE,
    UNEVICTABLE_PGMLOCKED,
    VM_LOCKED,
    VM_SPECIAL,
    PG_active,
    PG_locked,
    PG_lru,
    PG_swapbacked,
    PG_unevictable,
)
from kstate.machine import (
    borrow_cpu,
    look,
    mutex_lock,
    mutex_unlock,
    preempt_disable,
    preempt_enable,
    return_cpu,
    spin_lock_irq,
    spin_unlock_irq,
    touch,
)
from kstate.mm import hugetlb, memcontrol, page_alloc
from kstate.mm.debug import VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageActive,
    ClearPageLRU,
    ClearPageReferenced,
    ClearPageUnevictable,
    PageActive,
    PageDirty,
    PageHuge,
    PageLRU,
    PageReferenced,
    PageSwapBacked,
    PageUnevictable,
    PageWriteback,
    SetPageActive,
    SetPageLRU,
    SetPageReclaim,
    SetPageReferenced,
    SetPageUnevictable,
    TestSetPageMlocked,
    get_page,
    get_page_unless_zero,
    page_mapped,
    peek,
    put_page_testzero,
)
from kstate.structs import (
    Kernel,
    Page,
    Pagevec,
    VmAreaStruct,
    Zone,
    list_add,
    list_del,
    list_move_tail,
    pagevec_add,
    pagevec_count,
    pagevec_reinit,
)


def page_is_file_cache(page: Page) -> bool:
    """Does it belong on the file lists? Source: include/linux/mm_inline.h, v4.3."""
    return not PageSwapBacked(page)


def page_lru_base_type(page: Page) -> int:
    """Its inactive list. Source: include/linux/mm_inline.h page_lru_base_type(), v4.3."""
    return LRU_INACTIVE_FILE if page_is_file_cache(page) else LRU_INACTIVE_ANON


def page_lru(page: Page) -> int:
    """The list the page's flags say it belongs on.

    Source:   include/linux/mm_inline.h page_lru(), v4.3.
    Context:  lru_lock held, or the page is off the LRU.
    """
    if PageUnevictable(page):
        return LRU_UNEVICTABLE
    lru = page_lru_base_type(page)
    if PageActive(page):
        lru += LRU_ACTIVE_ANON
    return lru


def page_off_lru(page: Page) -> int:
    """The list the page is on, as it leaves it for good: its list flags are cleared.

    Source:   include/linux/mm_inline.h page_off_lru(), v4.3.
    Context:  lru_lock held, refcount 0.
    """
    if PageUnevictable(page):
        ClearPageUnevictable(page)
        return LRU_UNEVICTABLE
    lru = page_lru_base_type(page)
    if PageActive(page):
        ClearPageActive(page)
        lru += LRU_ACTIVE_ANON
    return lru


def add_page_to_lru_list(page: Page, zone: Zone, lru: int) -> None:
    """Link and count. Source: include/linux/mm_inline.h, v4.3. Context: lru_lock held."""
    list_add(page, zone, lru)
    memcontrol.mem_cgroup_update_lru_size(page, zone, lru, 1)
    touch(zone, "lru")
    zone.stat[lru] += 1


def del_page_from_lru_list(page: Page, zone: Zone, lru: int) -> None:
    """Unlink and count. Source: include/linux/mm_inline.h, v4.3. Context: lru_lock held."""
    list_del(page, zone, lru)
    memcontrol.mem_cgroup_update_lru_size(page, zone, lru, -1)
    touch(zone, "lru")
    zone.stat[lru] -= 1


def lru_cache_add(k: Kernel, page: Page) -> None:
    """Queue a page for the LRU; it is PG_lru only once this CPU's pagevec is drained.

    Source:   mm/swap.c lru_cache_add(), __lru_cache_add(), v4.3.
    Context:  any; the pagevec holds a reference of its own.
    Bugs:     VM_BUG: active and unevictable together; already on the LRU.
    """
    look(page, "flags")
    flags = page._flags
    VM_BUG_ON_PAGE(
        flags & PG_active != 0 and flags & PG_unevictable != 0,
        "vm-bug-lru-cache-add-active-unevictable",
        "PageActive(page) && PageUnevictable(page)",
    )
    VM_BUG_ON_PAGE(flags & PG_lru != 0, "vm-bug-lru-cache-add-lru", "PageLRU(page)")
    preempt_disable(k.machine)
    pvec = k.lru_add_pvecs[k.machine.current.cpu]
    get_page(page)
    if len(pvec.pages) == PAGEVEC_SIZE:
        __pagevec_lru_add(k, pvec.pages)
        pagevec_reinit(pvec)
    pagevec_add(pvec, page)
    preempt_enable(k.machine)


def lru_cache_add_inactive(k: Kernel, page: Page) -> None:
    """lru_cache_add_anon(), lru_cache_add_file(): queue for an inactive list.

    Source:   mm/swap.c, v4.3.                Context: any.
    """
    if PageActive(page):
        ClearPageActive(page)
    lru_cache_add(k, page)


def __pagevec_lru_add(k: Kernel, pages: list[Page]) -> None:
    """Put a pagevec's pages on the LRU, then drop its references.

    Source:   mm/swap.c __pagevec_lru_add(), v4.3.
    Context:  takes lru_lock, once for a run of pages of one zone.
    """
    pagevec_lru_move_fn(k, pages, __pagevec_lru_add_fn)


def __pagevec_lru_add_fn(page: Page, zone: Zone) -> None:
    """Source: mm/swap.c __pagevec_lru_add_fn(), v4.3. Context: lru_lock held.

    Bugs:     VM_BUG: already on the LRU.
    """
    VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-pagevec-lru-add", "PageLRU(page)")
    lru = page_lru(page)
    SetPageLRU(page)
    add_page_to_lru_list(page, zone, lru)
    active = peek(page, PG_active) != 0
    file = peek(page, PG_swapbacked) == 0
    base = LRU_INACTIVE_FILE if file else LRU_INACTIVE_ANON
    update_page_reclaim_stat(zone, base, rotated=active)


def pagevec_lru_move_fn(k: Kernel, pages: list[Page], move: Callable[[Page, Zone], None]) -> None:
    """Do something to each page of a pagevec under its zone's lru_lock, then drop its references.

    Source:   mm/swap.c pagevec_lru_move_fn(), v4.3.
    Context:  takes lru_lock, once for a run of pages of one zone.
    """
    zone: Zone | None = None
    for page in pages:
        if page.zone is not zone:
            if zone is not None:
                spin_unlock_irq(zone.lru_lock)
            zone = page.zone
            spin_lock_irq(zone.lru_lock)
        move(page, zone)
    if zone is not None:
        spin_unlock_irq(zone.lru_lock)
    release_pages(k, pages)


def pagevec_move_tail_fn(page: Page, zone: Zone) -> None:
    """Source: mm/swap.c pagevec_move_tail_fn(), v4.3. Context: lru_lock held."""
    if PageLRU(page) and not PageActive(page) and not PageUnevictable(page):
        list_move_tail(page, zone, page_lru_base_type(page))


def rotate_reclaimable_page(k: Kernel, page: Page) -> None:
    """Written back for reclaim: it is next to be reclaimed.

    Source:   mm/swap.c rotate_reclaimable_page(), v4.3.
    Context:  any.
    """
    if (
        not peek(page, PG_locked)
        and not PageDirty(page)
        and not PageActive(page)
        and not PageUnevictable(page)
        and PageLRU(page)
    ):
        get_page(page)
        _queue(k, k.lru_rotate_pvecs, page, pagevec_move_tail_fn)


def __activate_page(page: Page, zone: Zone) -> None:
    """Source: mm/swap.c __activate_page(), v4.3. Context: lru_lock held."""
    if PageLRU(page) and not PageActive(page) and not PageUnevictable(page):
        lru = page_lru_base_type(page)
        del_page_from_lru_list(page, zone, lru)
        SetPageActive(page)
        add_page_to_lru_list(page, zone, lru + LRU_ACTIVE_ANON)
        update_page_reclaim_stat(zone, lru, rotated=True)


def update_page_reclaim_stat(zone: Zone, lru: int, *, rotated: bool) -> None:
    """What reclaim balances the two kinds by. Source: mm/swap.c, v4.3. Context: lru_lock held."""
    file = lru >= LRU_INACTIVE_FILE
    touch(zone, "reclaim_stat")
    zone.recent_scanned[file] += 1
    zone.recent_rotated[file] += rotated


def activate_page(k: Kernel, page: Page) -> None:
    """Queue a page for its active list. Source: mm/swap.c activate_page(), v4.3. Context: any."""
    if PageLRU(page) and not PageActive(page) and not PageUnevictable(page):
        get_page(page)
        _queue(k, k.activate_page_pvecs, page, __activate_page)


def __lru_cache_activate_page(k: Kernel, page: Page) -> None:
    """A page that waits in this CPU's lru_add pagevec will go to the active list.

    Source:   mm/swap.c __lru_cache_activate_page(), v4.3.
    """
    preempt_disable(k.machine)
    if page in k.lru_add_pvecs[k.machine.current.cpu].pages:
        SetPageActive(page)
    preempt_enable(k.machine)


def lru_deactivate_file_fn(page: Page, zone: Zone) -> None:
    """Source: mm/swap.c lru_deactivate_file_fn(), v4.3. Context: lru_lock held."""
    if not PageLRU(page) or PageUnevictable(page) or page_mapped(page):
        return
    lru = page_lru_base_type(page)
    del_page_from_lru_list(page, zone, lru + (LRU_ACTIVE_ANON if PageActive(page) else 0))
    ClearPageActive(page)
    ClearPageReferenced(page)
    add_page_to_lru_list(page, zone, lru)
    if PageWriteback(page) or PageDirty(page):
        SetPageReclaim(page)
    else:
        list_move_tail(page, zone, lru)
    update_page_reclaim_stat(zone, lru, rotated=False)


def deactivate_file_page(k: Kernel, page: Page) -> None:
    """Invalidation could not drop the page: move it to the end of the inactive list.

    Source:   mm/swap.c deactivate_file_page(), v4.3.          Context: any.
    """
    if PageUnevictable(page):
        return
    if get_page_unless_zero(page):
        _queue(k, k.lru_deactivate_file_pvecs, page, lru_deactivate_file_fn)


def _queue(k: Kernel, pvecs: list[Pagevec], page: Page, move: Callable[[Page, Zone], None]) -> None:
    """Add a page, with a reference for it, to this CPU's pagevec; drain that once it is full."""
    preempt_disable(k.machine)
    pvec = pvecs[k.machine.current.cpu]
    pagevec_add(pvec, page)
    if len(pvec.pages) == PAGEVEC_SIZE:
        pagevec_lru_move_fn(k, pvec.pages, move)
        pagevec_reinit(pvec)
    preempt_enable(k.machine)


def lru_add_drain(k: Kernel) -> None:
    """Drain this CPU's pagevecs.

    Source:   mm/swap.c lru_add_drain(), lru_add_drain_cpu(), v4.3.
    Context:  any.
    """
    preempt_disable(k.machine)
    _lru_add_drain_cpu(k, k.machine.current.cpu)
    preempt_enable(k.machine)


def _lru_add_drain_cpu(k: Kernel, cpu: int) -> None:
    """Context: preemption off on that CPU. To others a pagevec is empty only when all is done."""
    for pvecs, move in (
        (k.lru_add_pvecs, __pagevec_lru_add_fn),
        (k.lru_rotate_pvecs, pagevec_move_tail_fn),
        (k.lru_deactivate_file_pvecs, lru_deactivate_file_fn),
        (k.activate_page_pvecs, __activate_page),
    ):
        if pagevec_count(pvecs[cpu]):
            pagevec_lru_move_fn(k, pvecs[cpu].pages, move)
            pagevec_reinit(pvecs[cpu])


def lru_add_drain_all(k: Kernel) -> None:
    """Drain every CPU's pagevec and wait for it.

    Source:   mm/swap.c lru_add_drain_all(), v4.3.
    Context:  sleeps. The work runs on each CPU in turn, which does nothing else meanwhile.
    """
    mutex_lock(k.lru_add_drain_mutex)
    busy: list[int] = []
    for cpu, pvec in enumerate(k.lru_add_pvecs):
        if (
            pagevec_count(pvec)
            or pagevec_count(k.lru_rotate_pvecs[cpu])
            or pagevec_count(k.lru_deactivate_file_pvecs[cpu])
            or pagevec_count(k.activate_page_pvecs[cpu])
        ):
            busy.append(cpu)
    tasks = k.machine.tasks
    for cpu in busy:
        owner = tasks[cpu + 1] if cpu + 1 < len(tasks) else None
        if owner is not None:
            look(owner)
        if owner is None or owner is k.machine.current or owner.ended:
            _lru_add_drain_cpu(k, cpu)
        else:
            borrow_cpu(owner)
            preempt_disable(k.machine)
            _lru_add_drain_cpu(k, cpu)
            preempt_enable(k.machine)
            return_cpu(owner)
    mutex_unlock(k.lru_add_drain_mutex)


def put_page(k: Kernel, page: Page) -> None:
    """Drop a reference; free the page if it was the last.

    Source:   mm/swap.c put_page(), __put_single_page(), put_compound_page(),
              __page_cache_release(), v4.3.
    Context:  lru_lock not held.
    """
    if put_page_testzero(page):
        if PageHuge(page):
            hugetlb.free_huge_page(k, page)
            return
        if PageLRU(page):
            zone = page.zone
            spin_lock_irq(zone.lru_lock)
            VM_BUG_ON_PAGE(not peek(page, PG_lru), "vm-bug-put-page-lru", "!PageLRU(page)")
            ClearPageLRU(page)
            del_page_from_lru_list(page, zone, page_off_lru(page))
            spin_unlock_irq(zone.lru_lock)
        memcontrol.mem_cgroup_uncharge(page)
        page_alloc.free_hot_cold_page(k, page)


def pagevec_release(k: Kernel, found: list[tuple[int, Page | int]]) -> None:
    """Drop the references of what find_get_entries found.

    Source:   mm/swap.c __pagevec_release(), mm/filemap.c pagevec_remove_exceptionals(), v4.3.
    Context:  drains this CPU's pagevecs first.
    """
    pages = [entry for _, entry in found if isinstance(entry, Page)]
    if pages:
        lru_add_drain(k)
        release_pages(k, pages)


def release_pages(k: Kernel, pages: list[Page]) -> None:
    """put_page for many; frees those whose last reference it dropped, at the end.

    Source:   mm/swap.c release_pages(), v4.3.
    Context:  lru_lock not held; it is kept across pages of one zone.
    Left out: the limit on how long lru_lock is held.
    """
    to_free: list[Page] = []
    zone: Zone | None = None
    for page in pages:
        if not put_page_testzero(page):
            continue
        if PageHuge(page):
            if zone is not None:
                spin_unlock_irq(zone.lru_lock)
                zone = None
            hugetlb.free_huge_page(k, page)
            continue
        if PageLRU(page):
            if page.zone is not zone:
                if zone is not None:
                    spin_unlock_irq(zone.lru_lock)
                zone = page.zone
                spin_lock_irq(zone.lru_lock)
            VM_BUG_ON_PAGE(not peek(page, PG_lru), "vm-bug-release-pages-lru", "!PageLRU(page)")
            ClearPageLRU(page)
            del_page_from_lru_list(page, zone, page_off_lru(page))
        ClearPageActive(page)
        to_free.append(page)
    if zone is not None:
        spin_unlock_irq(zone.lru_lock)
    for page in to_free:
        memcontrol.mem_cgroup_uncharge(page)
        page_alloc.free_hot_cold_page(k, page)


def add_page_to_unevictable_list(page: Page) -> None:
    """Link on the unevictable list at once, past the pagevecs.

    Source:   mm/swap.c add_page_to_unevictable_list(), v4.3.
    Context:  the page is locked or not yet visible; takes lru_lock.
    """
    zone = page.zone
    spin_lock_irq(zone.lru_lock)
    ClearPageActive(page)
    SetPageUnevictable(page)
    SetPageLRU(page)
    add_page_to_lru_list(page, zone, LRU_UNEVICTABLE)
    spin_unlock_irq(zone.lru_lock)


def lru_cache_add_active_or_unevictable(k: Kernel, page: Page, vma: VmAreaStruct) -> None:
    """Where a new anonymous page goes: marked and unevictable in a VM_LOCKED vma, else active.

    Source:   mm/swap.c lru_cache_add_active_or_unevictable(), v4.3.
    Context:  ptl held, the pte is not set yet.
    Bugs:     VM_BUG: already on the LRU.
    """
    VM_BUG_ON_PAGE(
        peek(page, PG_lru) != 0, "vm-bug-lru-cache-add-active-or-unevictable", "PageLRU(page)"
    )
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) != VM_LOCKED:
        SetPageActive(page)
        lru_cache_add(k, page)
        return
    if not TestSetPageMlocked(page):
        page.zone.stat[NR_MLOCK] += page.nr_pages
        k.count_vm_event(UNEVICTABLE_PGMLOCKED)
    add_page_to_unevictable_list(page)


def mark_page_accessed(k: Kernel, page: Page) -> None:
    """Remember that a page was used; the second time, activate it.

    Source:   mm/swap.c mark_page_accessed(), v4.3.
    Context:  any.
    """
    if not PageActive(page) and not PageUnevictable(page) and PageReferenced(page):
        if PageLRU(page):
            activate_page(k, page)
        else:
            __lru_cache_activate_page(k, page)
        ClearPageReferenced(page)
    elif not PageReferenced(page):
        SetPageReferenced(page)
