"""mm/mlock.c: mlock, munlock, and the PG_mlocked flag."""

from __future__ import annotations

from kstate.flags import (
    EAGAIN,
    EFAULT,
    EINVAL,
    ENOMEM,
    FOLL_DUMP,
    FOLL_GET,
    NR_MLOCK,
    PAGEVEC_SIZE,
    SWAP_AGAIN,
    SWAP_MLOCK,
    UNEVICTABLE_PGCLEARED,
    UNEVICTABLE_PGMLOCKED,
    UNEVICTABLE_PGMUNLOCKED,
    UNEVICTABLE_PGRESCUED,
    UNEVICTABLE_PGSTRANDED,
    VM_LOCKED,
    VM_SPECIAL,
    PG_locked,
    PG_lru,
)
from kstate.machine import (
    down_write,
    spin_lock,
    spin_lock_irq,
    spin_unlock,
    spin_unlock_irq,
    up_write,
)
from kstate.mm import gup, memory, mmap, rmap, swap, vmscan
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageLRU,
    PageLRU,
    PageUnevictable,
    TestClearPageMlocked,
    TestClearPageUnevictable,
    TestSetPageMlocked,
    get_page,
    lock_page,
    page_mapcount,
    peek,
    unlock_page,
)
from kstate.patches import ALT_SINGLE_PAGE_MUNLOCK, C_70feee0e1ef3
from kstate.structs import PRESENT, Kernel, MmStruct, Page, VmAreaStruct, Zone


def clear_page_mlock(k: Kernel, page: Page) -> None:
    """The last mapping is gone: the page cannot be Mlocked any more.

    Source:   mm/mlock.c clear_page_mlock(), v4.3.
    Context:  ptl of that mapping held, the page lock not needed; without e6c509f85455 the page is
              locked, and about to leave its file.
    """
    if not TestClearPageMlocked(page):
        return
    page.zone.stat[NR_MLOCK] -= page.nr_pages
    k.count_vm_event(UNEVICTABLE_PGCLEARED)
    if vmscan.isolate_lru_page(k, page) == 0:
        vmscan.putback_lru_page(k, page)
    elif PageUnevictable(page):
        k.count_vm_event(UNEVICTABLE_PGSTRANDED)


def mlock_vma_page(k: Kernel, page: Page) -> None:
    """Mark a page Mlocked; if it is on the LRU, move it to the unevictable list.

    Source:   mm/mlock.c mlock_vma_page(), v4.3.
    Context:  page locked.                    Bugs: BUG: page not locked.
    """
    BUG_ON(not peek(page, PG_locked), "bug-mlock-vma-page-unlocked", "!PageLocked(page)")
    if not TestSetPageMlocked(page):
        page.zone.stat[NR_MLOCK] += page.nr_pages
        k.count_vm_event(UNEVICTABLE_PGMLOCKED)
        if vmscan.isolate_lru_page(k, page) == 0:
            vmscan.putback_lru_page(k, page)


def __munlock_isolate_lru_page(page: Page, getpage: bool) -> bool:
    """Take a page off its LRU list, with a reference if `getpage`.

    Source:   mm/mlock.c __munlock_isolate_lru_page(), v4.3.      Context: lru_lock held.
    """
    if not PageLRU(page):
        return False
    if getpage:
        get_page(page)
    ClearPageLRU(page)
    swap.del_page_from_lru_list(page, page.zone, swap.page_lru(page))
    return True


def __munlock_isolated_page(k: Kernel, page: Page) -> None:
    """Second half of a munlock: does another VM_LOCKED vma want the page marked again?

    Source:   mm/mlock.c __munlock_isolated_page(), v4.3.
    Context:  page locked, isolated with a reference that putback drops.
    """
    ret = SWAP_AGAIN
    k.machine.note("munlock-walk-begin", page)
    mapcount = page_mapcount(page)
    if mapcount > 1:  # a page mapped once is mapped by us alone
        ret = rmap.try_to_munlock(k, page)
    k.machine.note("munlock-walk-end", page, mapcount)
    if ret != SWAP_MLOCK:
        k.count_vm_event(UNEVICTABLE_PGMUNLOCKED)
    vmscan.putback_lru_page(k, page)


def __munlock_isolation_failed(k: Kernel, page: Page) -> None:
    """Somebody else has the page off the LRU and will put it back where it belongs.

    Source:   mm/mlock.c __munlock_isolation_failed(), v4.3.
    """
    if PageUnevictable(page):
        k.count_vm_event(UNEVICTABLE_PGSTRANDED)
    else:
        k.count_vm_event(UNEVICTABLE_PGMUNLOCKED)


def munlock_vma_page(k: Kernel, page: Page) -> None:
    """Munlock one page under its lock.

    Source:   mm/mlock.c munlock_vma_page(), v4.3.
    Context:  page locked; takes lru_lock.     Bugs: BUG: page not locked.
    """
    BUG_ON(not peek(page, PG_locked), "bug-munlock-vma-page-unlocked", "!PageLocked(page)")
    zone = page.zone
    spin_lock_irq(zone.lru_lock)
    if not TestClearPageMlocked(page):
        spin_unlock_irq(zone.lru_lock)
        return
    zone.stat[NR_MLOCK] -= page.nr_pages
    if __munlock_isolate_lru_page(page, True):
        spin_unlock_irq(zone.lru_lock)
        __munlock_isolated_page(k, page)
        return
    __munlock_isolation_failed(k, page)
    spin_unlock_irq(zone.lru_lock)


def __putback_lru_fast_prepare(k: Kernel, page: Page, putback: list[Page]) -> int | None:
    """Can the page go back without a walk? Then it joins `putback` and is unlocked.

    Source:   mm/mlock.c __putback_lru_fast_prepare(), v4.3.
    Context:  page locked and isolated.
    Returns:  1 or 0, rescued from the unevictable list or not; None where it needs the slow path.
    Bugs:     VM_BUG: on the LRU; not locked.
    """
    VM_BUG_ON_PAGE(peek(page, PG_lru) != 0, "vm-bug-putback-fast-lru", "PageLRU(page)")
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-putback-fast-locked", "!PageLocked(page)")
    if page_mapcount(page) <= 1 and vmscan.page_evictable(k, page):
        putback.append(page)
        rescued = TestClearPageUnevictable(page)
        unlock_page(page)
        return int(rescued)
    return None


def __munlock_pagevec(k: Kernel, pages: list[Page], zone: Zone) -> None:
    """Munlock a batch of pinned pages of one zone. Their pins are dropped.

    Source:   mm/mlock.c __munlock_pagevec(), v4.3.            Patches: 70feee0e1ef3.
    Context:  phase 1 under lru_lock alone: neither page lock nor ptl; phase 2 page by page under
              its lock; phase 3 under lru_lock again.
    """
    # Phase 1: clear the flag, isolate.
    isolated: list[Page] = []
    putback: list[Page] = []
    cleared = 0
    spin_lock_irq(zone.lru_lock)
    for page in pages:
        if TestClearPageMlocked(page):
            cleared += 1
            if __munlock_isolate_lru_page(page, False):
                isolated.append(page)  # our pin becomes the isolation's
                continue
            __munlock_isolation_failed(k, page)
        putback.append(page)
    if C_70feee0e1ef3 in k.patches:
        zone.stat[NR_MLOCK] -= cleared
    else:
        # A page whose flag was cleared but which was not on the LRU is not counted.
        zone.stat[NR_MLOCK] -= len(isolated)
    spin_unlock_irq(zone.lru_lock)
    if putback:
        swap.lru_add_drain(k)
        swap.release_pages(k, putback)

    # Phase 2: ask the other mappings.
    fast: list[Page] = []
    rescued = 0
    for page in isolated:
        lock_page(page)
        quick = __putback_lru_fast_prepare(k, page, fast)
        if quick is None:
            get_page(page)  # the putback must not drop the last reference of a locked page
            __munlock_isolated_page(k, page)
            unlock_page(page)
            swap.put_page(k, page)
        else:
            rescued += quick

    # Phase 3: those that needed no asking.
    if fast:
        k.count_vm_event(UNEVICTABLE_PGMUNLOCKED, len(fast))
        swap.__pagevec_lru_add(k, fast)
        k.count_vm_event(UNEVICTABLE_PGRESCUED, rescued)


def __munlock_pagevec_fill(
    pages: list[Page], vma: VmAreaStruct, zone: Zone, start: int, end: int
) -> int:
    """Add the pages that follow the first, as far as they are present and of its zone; pin them.

    Source:   mm/mlock.c __munlock_pagevec_fill(), v4.3.
    Context:  takes the ptl again; `pages` holds the pinned page of `start`.
    Args:     start, end: page numbers.        Returns: the next page number to scan.
    """
    mm = vma.vm_mm
    spin_lock(mm.page_table_lock)
    start += 1
    while start < end:
        value = memory.pte_offset(mm, start).value
        page = value.page if value.kind == PRESENT else None
        if page is None or page.zone is not zone or page.nr_pages > 1:
            break
        get_page(page)
        start += 1
        pages.append(page)
        if len(pages) == PAGEVEC_SIZE:
            break
    spin_unlock(mm.page_table_lock)
    return start


def munlock_vma_pages_range(k: Kernel, vma: VmAreaStruct, start: int, end: int) -> None:
    """Clear VM_LOCKED, then munlock every page that is mapped.

    Source:   mm/mlock.c munlock_vma_pages_range(), v4.3.      Patches: alt:single-page-munlock.
    Context:  mmap_sem held for write, or by nobody at exit.
    Args:     start, end: page numbers.
    """
    vma.vm_flags &= ~VM_LOCKED
    while start < end:
        page = gup.follow_page_mask(k, vma, start, FOLL_GET | FOLL_DUMP)
        if not isinstance(page, Page):
            start += 1  # not present, a migration entry, or the zero page
            continue
        if page.nr_pages > 1:
            lock_page(page)
            munlock_vma_page(k, page)
            unlock_page(page)
            swap.put_page(k, page)
            start += 1
            continue
        if ALT_SINGLE_PAGE_MUNLOCK in k.patches:
            lock_page(page)
            munlock_vma_page(k, page)
            unlock_page(page)
            swap.put_page(k, page)
            start += 1
        else:
            pages = [page]
            start = __munlock_pagevec_fill(pages, vma, page.zone, start, end)
            __munlock_pagevec(k, pages, page.zone)


def mlock_fixup(k: Kernel, vma: VmAreaStruct, start: int, end: int, newflags: int) -> VmAreaStruct:
    """Give [start, end) of one vma new flags; split or merge so that it is a vma of its own.

    Source:   mm/mlock.c mlock_fixup(), v4.3.
    Context:  mmap_sem held for write.
    Returns:  the vma that now covers the range.
    """
    flags = vma.vm_flags
    if newflags == flags or flags & VM_SPECIAL:
        return vma
    merged = mmap.vma_merge(k, vma, start, end, newflags)
    if merged is not None:
        vma = merged
    else:
        if start != vma.vm_start:
            mmap.split_vma(k, vma, start, new_below=True)
        if end != vma.vm_end:
            mmap.split_vma(k, vma, end, new_below=False)
    locks = bool(newflags & VM_LOCKED)
    vma.vm_mm.locked_vm += (end - start) if locks else (start - end)
    if locks:
        vma.vm_flags = newflags
    else:
        munlock_vma_pages_range(k, vma, start, end)
    return vma


def do_mlock(k: Kernel, mm: MmStruct, start: int, end: int, on: bool) -> int:
    """Walk the vmas of a range and set or clear VM_LOCKED.

    Source:   mm/mlock.c do_mlock(), v4.3.
    Context:  mmap_sem held for write.
    Returns:  0, or -ENOMEM where part of the range is not mapped.
    """
    vma = mmap.find_vma(mm, start)
    if vma is None or vma.vm_start > start:
        return ENOMEM
    at = start
    while True:
        flags = vma.vm_flags & ~VM_LOCKED
        if on:
            flags |= VM_LOCKED
        upto = min(vma.vm_end, end)
        vma = mlock_fixup(k, vma, at, upto, flags)
        at = max(upto, vma.vm_end)
        if at >= end:
            return 0
        following = mmap.find_vma(mm, at)
        if following is None or following.vm_start != at:
            return ENOMEM
        vma = following


def sys_mlock(k: Kernel, mm: MmStruct, start: int, end: int) -> int:
    """mlock(2).

    Source:   mm/mlock.c SYSCALL mlock(), __mlock_posix_error_return(), v4.3.
    Context:  process context.
    Returns:  0, -ENOMEM or -EAGAIN. 0 does not say that every page is Mlocked.
    Left out: RLIMIT_MEMLOCK, security hooks.
    """
    if end <= start:
        return EINVAL if end < start else 0
    swap.lru_add_drain_all(k)
    down_write(mm.mmap_sem)
    error = do_mlock(k, mm, start, end, True)
    up_write(mm.mmap_sem)
    if error:
        return error
    error = gup.__mm_populate(k, mm, start, end)
    if error == EFAULT:
        return ENOMEM
    if error == ENOMEM:
        return EAGAIN
    return error


def sys_munlock(k: Kernel, mm: MmStruct, start: int, end: int) -> int:
    """munlock(2). Source: mm/mlock.c SYSCALL munlock(), v4.3. Returns: 0 or -ENOMEM."""
    if end <= start:
        return EINVAL if end < start else 0
    down_write(mm.mmap_sem)
    error = do_mlock(k, mm, start, end, False)
    up_write(mm.mmap_sem)
    return error
