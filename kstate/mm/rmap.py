"""mm/rmap.c: from a page to the ptes that map it."""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import (
    MM_ANONPAGES,
    MM_FILEPAGES,
    NR_ANON_PAGES,
    NR_FILE_MAPPED,
    SWAP_AGAIN,
    SWAP_FAIL,
    SWAP_MLOCK,
    SWAP_SUCCESS,
    TTU_IGNORE_ACCESS,
    TTU_IGNORE_MLOCK,
    TTU_MIGRATION,
    TTU_MUNLOCK,
    VM_LOCKED,
    PG_locked,
    PG_lru,
)
from kstate.machine import (
    down_read,
    down_read_trylock,
    down_write,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
    up_read,
    up_write,
)
from kstate.mm import memory, migrate, mlock, page_writeback, swap
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    PageMlocked,
    SetPageSwapBacked,
    atomic_add_negative_mapcount,
    atomic_inc_and_test_mapcount,
    page_mapcount,
    page_mapped,
)
from kstate.patches import P02
from kstate.structs import (
    PRESENT,
    AddressSpace,
    AnonVma,
    Kernel,
    Page,
    Pte,
    VmAreaStruct,
    atomic_dec_and_test,
    atomic_inc_not_zero,
    ptep_clear_flush_young,
    ptep_get_and_clear,
    set_pte_at,
)

RmapOne = Callable[[VmAreaStruct, int], int]


def insert_by_pgoff(vmas: list[VmAreaStruct], vma: VmAreaStruct) -> None:
    """Where the interval tree would visit it: by vm_pgoff, then in order of linking."""
    at = len(vmas)
    while at and vmas[at - 1].vm_pgoff > vma.vm_pgoff:
        at -= 1
    vmas.insert(at, vma)


def anon_vma_prepare(vma: VmAreaStruct) -> None:
    """Give a vma an anon_vma before its first anonymous page.

    Source:   mm/rmap.c anon_vma_prepare(), v4.3.
    Context:  mmap_sem held; takes the anon_vma's rwsem for write.
    Left out: sharing with a neighbour, page_table_lock; two threads that fault at once are told
              apart by who stores first, as under page_table_lock.
    """
    if vma.anon_vma is not None:
        return
    anon_vma = AnonVma(vma.machine)
    down_write(anon_vma.rwsem)
    if vma.anon_vma is None:
        vma.anon_vma = anon_vma
        anon_vma.vmas.append(vma)
    up_write(anon_vma.rwsem)


def anon_vma_unlink(vma: VmAreaStruct) -> None:
    """Take a vma off its anon_vma.

    Source:   mm/rmap.c unlink_anon_vmas(), v4.3.
    Context:  takes the rwsem for write.
    """
    anon_vma = vma.anon_vma
    if anon_vma is None:
        return
    down_write(anon_vma.rwsem)
    anon_vma.vmas.remove(vma)
    last = not anon_vma.vmas
    up_write(anon_vma.rwsem)
    if last:
        put_anon_vma(anon_vma)


def put_anon_vma(anon_vma: AnonVma) -> None:
    """Drop a reference. Source: include/linux/rmap.h put_anon_vma(), v4.3. The memory is
    type-stable; it stays readable here for as long as anyone has a pointer."""
    atomic_dec_and_test(anon_vma)


def page_get_anon_vma(k: Kernel, page: Page) -> AnonVma | None:
    """The anon_vma of a mapped anonymous page, with a reference.

    Source:   mm/rmap.c page_get_anon_vma(), v4.3.
    Context:  RCU; with the page locked, None means unmapped.
    """
    rcu_read_lock(k.machine)
    anon_vma = page.mapping
    if not isinstance(anon_vma, AnonVma) or not page_mapped(page):
        rcu_read_unlock(k.machine)
        return None
    if not atomic_inc_not_zero(anon_vma):
        rcu_read_unlock(k.machine)
        return None
    if not page_mapped(page):
        rcu_read_unlock(k.machine)
        put_anon_vma(anon_vma)
        return None
    rcu_read_unlock(k.machine)
    return anon_vma


def page_lock_anon_vma_read(k: Kernel, page: Page) -> AnonVma | None:
    """The anon_vma of a mapped anonymous page, locked for read.

    Source:   mm/rmap.c page_lock_anon_vma_read(), v4.3.
    Context:  RCU while it tries; sleeps with a reference where the trylock fails.
    """
    rcu_read_lock(k.machine)
    anon_vma = page.mapping
    if not isinstance(anon_vma, AnonVma) or not page_mapped(page):
        rcu_read_unlock(k.machine)
        return None
    if down_read_trylock(anon_vma.rwsem):
        if not page_mapped(page):
            up_read(anon_vma.rwsem)
            rcu_read_unlock(k.machine)
            return None
        rcu_read_unlock(k.machine)
        return anon_vma
    if not atomic_inc_not_zero(anon_vma):
        rcu_read_unlock(k.machine)
        return None
    if not page_mapped(page):
        rcu_read_unlock(k.machine)
        put_anon_vma(anon_vma)
        return None
    rcu_read_unlock(k.machine)
    down_read(anon_vma.rwsem)
    if atomic_dec_and_test(anon_vma):
        up_read(anon_vma.rwsem)
        return None
    return anon_vma


def rmap_walk(
    k: Kernel,
    page: Page,
    rmap_one: RmapOne,
    *,
    done: Callable[[Page], bool] | None = None,
    by_mapcount: bool = True,
) -> int:
    """Visit every vma that may map a page, until one of them says anything but SWAP_AGAIN.

    Source:   mm/rmap.c rmap_walk(), rmap_walk_anon(), rmap_walk_file(), v4.3.
    Context:  a file page is locked; holds i_mmap_rwsem or the anon_vma's rwsem for read.
    Args:     done: asked after each vma; True ends the walk. by_mapcount: find the anon_vma by
              way of page_mapped; else the caller holds a reference on it.
    Bugs:     VM_BUG: file page not locked.
    Left out: KSM pages, the cond_resched() that v4.4 adds.
    """
    mapping = page.mapping
    ret = SWAP_AGAIN
    if isinstance(mapping, AnonVma):
        if by_mapcount:
            anon_vma = page_lock_anon_vma_read(k, page)
            if anon_vma is None:
                return ret
        else:
            anon_vma = mapping
            down_read(anon_vma.rwsem)
        ret = _visit(page, anon_vma.vmas, rmap_one, done)
        up_read(anon_vma.rwsem)
        return ret
    VM_BUG_ON_PAGE(not page._flags & PG_locked, "vm-bug-rmap-walk-unlocked", "!PageLocked(page)")
    if not isinstance(mapping, AddressSpace):
        return ret
    down_read(mapping.i_mmap_rwsem)
    ret = _visit(page, mapping.i_mmap, rmap_one, done)
    up_read(mapping.i_mmap_rwsem)
    return ret


def _visit(
    page: Page,
    vmas: list[VmAreaStruct],
    rmap_one: RmapOne,
    done: Callable[[Page], bool] | None,
) -> int:
    pgoff = page.index
    ret = SWAP_AGAIN
    for vma in vmas:  # cannot change: the rwsem is held for read
        address = vma.vm_start + pgoff - vma.vm_pgoff
        if not vma.vm_start <= address < vma.vm_end:
            continue
        ret = rmap_one(vma, address)
        if ret != SWAP_AGAIN or (done is not None and done(page)):
            break
    return ret


def page_check_address(page: Page, vma: VmAreaStruct, address: int) -> Pte | None:
    """The pte that maps a page at an address, with the ptl held; None where it does not.

    Source:   mm/rmap.c __page_check_address(), v4.3, sync == 0: it peeks without the lock first.
    Context:  takes the ptl where it returns a pte.
    """
    pte = memory.pte_offset(vma.vm_mm, address)
    if pte.value.kind != PRESENT:
        return None
    spin_lock(pte.lock)
    value = pte.value
    if value.kind == PRESENT and value.page is page:
        return pte
    spin_unlock(pte.lock)
    return None


def page_add_anon_rmap(page: Page, vma: VmAreaStruct, address: int) -> None:
    """One mapping more of an anonymous page.

    Source:   mm/rmap.c page_add_anon_rmap(), do_page_add_anon_rmap(), v4.3.
    Context:  ptl held, page locked.           Bugs: VM_BUG: page not locked.
    """
    first = atomic_inc_and_test_mapcount(page)
    if first:
        page.zone.stat[NR_ANON_PAGES] += 1
    VM_BUG_ON_PAGE(not page._flags & PG_locked, "vm-bug-anon-rmap-unlocked", "!PageLocked(page)")
    if first and not isinstance(page.mapping, AnonVma):
        __page_set_anon_rmap(page, vma, address)


def __page_set_anon_rmap(page: Page, vma: VmAreaStruct, address: int) -> None:
    """Source: mm/rmap.c __page_set_anon_rmap(), v4.3. Context: ptl held.

    Bugs:     BUG: the vma has no anon_vma.
    """
    BUG_ON(vma.anon_vma is None, "bug-set-anon-rmap", "!anon_vma")
    page.mapping = vma.anon_vma
    page.index = memory.linear_page_index(vma, address)


def page_add_new_anon_rmap(page: Page, vma: VmAreaStruct, address: int) -> None:
    """The first mapping of a new anonymous page, which need not be locked.

    Source:   mm/rmap.c page_add_new_anon_rmap(), v4.3.        Context: ptl held.
    Bugs:     VM_BUG: the address is outside the vma.
    """
    VM_BUG_ON_PAGE(
        not vma.vm_start <= address < vma.vm_end,
        "vm-bug-new-anon-rmap-address",
        "address < vma->vm_start || address >= vma->vm_end",
    )
    SetPageSwapBacked(page)
    atomic_inc_and_test_mapcount(page)
    page.zone.stat[NR_ANON_PAGES] += 1
    __page_set_anon_rmap(page, vma, address)


def page_add_file_rmap(page: Page) -> None:
    """One mapping more of a file page. Source: mm/rmap.c, v4.3. Context: ptl held."""
    if atomic_inc_and_test_mapcount(page):
        page.zone.stat[NR_FILE_MAPPED] += 1


def page_remove_rmap(k: Kernel, page: Page) -> None:
    """One mapping less. The last one takes PG_mlocked with it.

    Source:   mm/rmap.c page_remove_rmap(), page_remove_file_rmap(), v4.3.
    Context:  ptl held; the page lock is not needed.
    """
    counter = NR_ANON_PAGES if isinstance(page.mapping, AnonVma) else NR_FILE_MAPPED
    if not atomic_add_negative_mapcount(page):
        return
    page.zone.stat[counter] -= 1
    if PageMlocked(page):
        mlock.clear_page_mlock(k, page)


def page_referenced(k: Kernel, page: Page) -> tuple[int, int]:
    """How many ptes have used a locked page since this was last asked?

    Source:   mm/rmap.c page_referenced(), page_referenced_one(), v4.3.
    Context:  page locked; takes each ptl.
    Returns:  (ptes that had the accessed bit, vm_flags seen there; VM_LOCKED ends the walk).
    """
    mapcount = page_mapcount(page)
    if mapcount == 0 or page.mapping is None:
        return 0, 0
    referenced = vm_flags = 0

    def page_referenced_one(vma: VmAreaStruct, address: int) -> int:
        nonlocal mapcount, referenced, vm_flags
        pte = page_check_address(page, vma, address)
        if pte is None:
            return SWAP_AGAIN
        if vma.vm_flags & VM_LOCKED:
            spin_unlock(pte.lock)
            vm_flags |= VM_LOCKED
            return SWAP_FAIL
        young = ptep_clear_flush_young(pte)
        spin_unlock(pte.lock)
        if young:
            referenced += 1
            vm_flags |= vma.vm_flags  # read again, without the ptl
        mapcount -= 1
        return SWAP_AGAIN if mapcount else SWAP_SUCCESS

    rmap_walk(k, page, page_referenced_one)
    return referenced, vm_flags


def try_to_unmap_one(k: Kernel, page: Page, vma: VmAreaStruct, address: int, flags: int) -> int:
    """Take away the one pte in `vma` that maps `page`; or, in a VM_LOCKED vma, mark the page.

    Source:   mm/rmap.c try_to_unmap_one(), v4.3.              Patches: P02.
    Context:  page locked, rmap lock held for read; takes and drops the ptl.
    Args:     address: page number, inside `vma`.              flags: TTU_* bits.
    Returns:  SWAP_AGAIN: carry on walking. SWAP_MLOCK: a locked vma maps the page, stop.
              SWAP_FAIL: the pte was used lately.
    Bugs:     BUG: an anonymous page outside migration (no swap here).
    Left out: swap entries, hwpoison, soft-dirty, deferred TLB flushes.
    """
    if P02 in k.patches:
        if flags & TTU_MUNLOCK and not vma.vm_flags & VM_LOCKED:
            return SWAP_AGAIN  # munlock learns nothing from a vma that is not locked

    pte = page_check_address(page, vma, address)  # comes back with the ptl held
    if pte is None:
        return SWAP_AGAIN

    if not flags & TTU_IGNORE_MLOCK:
        if vma.vm_flags & VM_LOCKED:
            if P02 in k.patches:
                mlock.mlock_vma_page(k, page)
                spin_unlock(pte.lock)
                return SWAP_MLOCK
            else:
                spin_unlock(pte.lock)
                return mlock_if_mmap_sem_free(k, page, vma)
        if flags & TTU_MUNLOCK:
            spin_unlock(pte.lock)
            return SWAP_AGAIN
    if not flags & TTU_IGNORE_ACCESS and ptep_clear_flush_young(pte):
        spin_unlock(pte.lock)
        return SWAP_FAIL

    value = ptep_get_and_clear(pte)
    if value.dirty:
        page_writeback.set_page_dirty(k, page)
    anon = isinstance(page.mapping, AnonVma)
    BUG_ON(
        anon and not flags & TTU_MIGRATION,
        "bug-unmap-anon-without-swap",
        "anonymous page, no swap entry, not a migration",
    )
    if flags & TTU_MIGRATION:
        set_pte_at(pte, migrate.make_migration_entry(page, value.write))
    else:
        vma.vm_mm.rss[MM_ANONPAGES if anon else MM_FILEPAGES] -= 1
    page_remove_rmap(k, page)
    swap.put_page(k, page)
    spin_unlock(pte.lock)
    return SWAP_AGAIN


def mlock_if_mmap_sem_free(k: Kernel, page: Page, vma: VmAreaStruct) -> int:
    """Mark a page found in a VM_LOCKED vma; with the ptl gone, mmap_sem is to keep VM_LOCKED.

    Source:   mm/rmap.c try_to_unmap_one(), from out_mlock, v4.3.
    Context:  page locked, rmap lock held for read, ptl not held. exit_mmap holds no mmap_sem.
    Returns:  SWAP_MLOCK where it was marked; SWAP_AGAIN where mmap_sem is taken or VM_LOCKED gone.
    """
    ret = SWAP_AGAIN
    mm = vma.vm_mm
    if down_read_trylock(mm.mmap_sem):
        if vma.vm_flags & VM_LOCKED:
            mlock.mlock_vma_page(k, page)
            ret = SWAP_MLOCK
        up_read(mm.mmap_sem)
    return ret


def page_not_mapped(page: Page) -> bool:
    """Ends a walk early. Source: mm/rmap.c page_not_mapped(), v4.3."""
    return not page_mapped(page)


def try_to_unmap(k: Kernel, page: Page, flags: int) -> int:
    """Take away every mapping of a page.

    Source:   mm/rmap.c try_to_unmap(), v4.3.
    Context:  page locked, off the LRU.
    Returns:  SWAP_SUCCESS: no mapping left. SWAP_MLOCK, SWAP_FAIL, SWAP_AGAIN: some are.
    """
    k.machine.note("unmap-walk-begin", page, flags)
    ret = rmap_walk(
        k,
        page,
        lambda vma, address: try_to_unmap_one(k, page, vma, address, flags),
        done=page_not_mapped,
    )
    if ret != SWAP_MLOCK and not page_mapped(page):
        ret = SWAP_SUCCESS
    k.machine.note("unmap-walk-end", page, flags, ret)
    return ret


def try_to_munlock(k: Kernel, page: Page) -> int:
    """Look for a VM_LOCKED vma that maps the page, and mark the page again if there is one.

    Source:   mm/rmap.c try_to_munlock(), v4.3.
    Context:  page locked, isolated.           Bugs: VM_BUG: not locked, or on the LRU.
    """
    VM_BUG_ON_PAGE(
        not page._flags & PG_locked or page._flags & PG_lru != 0,
        "vm-bug-try-to-munlock",
        "!PageLocked(page) || PageLRU(page)",
    )
    return rmap_walk(
        k,
        page,
        lambda vma, address: try_to_unmap_one(k, page, vma, address, TTU_MUNLOCK),
        done=page_not_mapped,
    )
