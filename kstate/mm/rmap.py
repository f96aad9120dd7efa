"""mm/rmap.c: from a page to the ptes that map it."""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import (
    MEM_CGROUP_STAT_FILE_MAPPED,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SWAPENTS,
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
    VM_SHARED,
    PG_locked,
    PG_lru,
    PG_swapcache,
)
from kstate.machine import (
    down_read,
    down_read_trylock,
    down_write,
    look,
    rcu_read_lock,
    rcu_read_unlock,
    rwsem_is_locked,
    spin_lock,
    spin_unlock,
    touch,
    up_read,
    up_write,
)
from kstate.mm import (
    huge_memory,
    ksm,
    memcontrol,
    memory,
    migrate,
    mlock,
    page_writeback,
    swap,
    swapfile,
    util,
)
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    PageAnon,
    PageAnonNotKsm,
    PageHuge,
    PageMlocked,
    PageSwapCache,
    SetPageSwapBacked,
    atomic_add_negative_mapcount,
    atomic_inc_and_test_mapcount,
    page_mapcount,
    page_mapped,
    peek,
    trylock_page,
    unlock_page,
)
from kstate.patches import (
    ALT_MM_USERS,
    ALT_TRYLOCK_UNDER_PTL,
    FIX_KSM_REFERENCED,
    FIX_PEEK_UNDER_PTL,
    FIX_THP_MUNLOCK_WALK,
    P02,
    P10,
    C_e6c509f85455,
)
from kstate.structs import (
    NO_STABLE_NODE,
    PRESENT,
    SWAP,
    AddressSpace,
    AnonVma,
    Kernel,
    Page,
    Pte,
    PteVal,
    StableNode,
    VmAreaStruct,
    atomic_dec_and_test,
    atomic_inc_anon_vma,
    atomic_inc_not_zero,
    mm_users,
    pte_with,
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


def anon_vma_chain_link(vma: VmAreaStruct, anon_vma: AnonVma) -> None:
    """Source: mm/rmap.c anon_vma_chain_link(), v4.3. Context: the anon_vma's rwsem for write."""
    vma.anon_vma_chain.insert(0, anon_vma)
    insert_by_pgoff(anon_vma.vmas, vma)


def anon_vma_prepare(vma: VmAreaStruct) -> None:
    """Give a vma an anon_vma before its first anonymous page.

    Source:   mm/rmap.c anon_vma_prepare(), v4.3.
    Context:  mmap_sem held; takes the anon_vma's rwsem for write.
    Left out: sharing with a neighbour, page_table_lock; two threads that fault at once are told
              apart by who stores first, as under page_table_lock.
    """
    look(vma, "anon_vma")
    if (_before := vma.anon_vma) is not None:  # mypy would believe it of vma.anon_vma after a step
        return
    anon_vma = AnonVma(vma.machine)
    down_write(anon_vma.rwsem)
    touch(vma, "anon_vma")
    if vma.anon_vma is None:
        vma.anon_vma = anon_vma
        anon_vma_chain_link(vma, anon_vma)
        anon_vma.degree += 1
        up_write(anon_vma.rwsem)
        return
    up_write(anon_vma.rwsem)
    put_anon_vma(anon_vma)


def anon_vma_clone(dst: VmAreaStruct, src: VmAreaStruct) -> None:
    """Put `dst` on every anon_vma that `src` is on.

    Source:   mm/rmap.c anon_vma_clone(), v4.3.
    Context:  mmap_sem held for write; takes the root's rwsem for write.
    Left out: failure to allocate.
    """
    if not src.anon_vma_chain:
        return
    rwsem = src.anon_vma_chain[0].rwsem
    down_write(rwsem)
    for anon_vma in reversed(src.anon_vma_chain):
        anon_vma_chain_link(dst, anon_vma)
        # One that is no more than a link between its parent and one child may be used again.
        if dst.anon_vma is None and anon_vma is not src.anon_vma and anon_vma.degree < 2:
            dst.anon_vma = anon_vma
    if dst.anon_vma is not None:
        dst.anon_vma.degree += 1
    up_write(rwsem)


def anon_vma_fork(child: VmAreaStruct, parent: VmAreaStruct) -> None:
    """Put a child's vma on its parent's anon_vmas, and give it one of its own for new pages.

    Source:   mm/rmap.c anon_vma_fork(), v4.3.
    Context:  mmap_sem held for write; takes the root's rwsem for write.
    """
    if parent.anon_vma is None:
        return
    anon_vma_clone(child, parent)
    if child.anon_vma is not None:
        return
    anon_vma = AnonVma(child.machine, parent.anon_vma)
    get_anon_vma(anon_vma.root)
    child.anon_vma = anon_vma
    down_write(anon_vma.rwsem)
    anon_vma_chain_link(child, anon_vma)
    anon_vma.parent.degree += 1
    up_write(anon_vma.rwsem)


def unlink_anon_vmas(vma: VmAreaStruct) -> None:
    """Take a vma off all its anon_vmas.

    Source:   mm/rmap.c unlink_anon_vmas(), v4.3.
    Context:  takes the root's rwsem for write.
    Bugs:     BUG: an anon_vma without vmas still has children.
    """
    if not vma.anon_vma_chain:
        return
    empty: list[AnonVma] = []
    rwsem = vma.anon_vma_chain[0].rwsem
    down_write(rwsem)
    for anon_vma in vma.anon_vma_chain:
        anon_vma.vmas.remove(vma)
        if not anon_vma.vmas:
            anon_vma.parent.degree -= 1
            empty.append(anon_vma)
    if vma.anon_vma is not None:
        vma.anon_vma.degree -= 1
    up_write(rwsem)
    vma.anon_vma_chain = []
    for anon_vma in empty:
        BUG_ON(anon_vma.degree != 0, "bug-unlink-anon-vmas-degree", "anon_vma->degree")
        put_anon_vma(anon_vma)


def get_anon_vma(anon_vma: AnonVma) -> None:
    """Take a reference. Source: include/linux/rmap.h get_anon_vma(), v4.3."""
    atomic_inc_anon_vma(anon_vma)


def put_anon_vma(anon_vma: AnonVma) -> None:
    """Drop a reference. Source: include/linux/rmap.h put_anon_vma(), v4.3."""
    if atomic_dec_and_test(anon_vma):
        __put_anon_vma(anon_vma)


def __put_anon_vma(anon_vma: AnonVma) -> None:
    """Free an anon_vma that has no reference left, and drop the one it has on its root.

    Source:   mm/rmap.c __put_anon_vma(), v4.3.               Context: sleeps.
    """
    anon_vma_free(anon_vma)
    if anon_vma.root is not anon_vma and atomic_dec_and_test(anon_vma.root):
        anon_vma_free(anon_vma.root)


def anon_vma_free(anon_vma: AnonVma) -> None:
    """Wait for who has locked the tree without a reference.

    Source:   mm/rmap.c anon_vma_free(), v4.3.                Context: sleeps.
    Left out: reuse: the memory is type-stable, and stays readable for who has a pointer.
    """
    if rwsem_is_locked(anon_vma.rwsem):
        down_write(anon_vma.rwsem)
        up_write(anon_vma.rwsem)
    anon_vma.machine.note("anon-vma-freed", anon_vma)


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
        __put_anon_vma(anon_vma)
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

    Source:   mm/rmap.c rmap_walk(), rmap_walk_file(), v4.3.
    Context:  a file page is locked; holds i_mmap_rwsem or the anon_vma's rwsem for read.
    Args:     done: asked after each vma; True ends the walk. by_mapcount: find the anon_vma by
              way of page_mapped; else the caller holds a reference on it.
    Bugs:     VM_BUG: file page not locked.
    Left out: the cond_resched() that v4.4 adds.
    """
    mapping = page.mapping
    ret = SWAP_AGAIN
    if isinstance(mapping, AnonVma):
        return rmap_walk_anon(k, page, rmap_one, done, None if by_mapcount else mapping)
    if isinstance(mapping, StableNode):
        return ksm.rmap_walk_ksm(page, mapping, rmap_one, done)
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-rmap-walk-unlocked", "!PageLocked(page)")
    if not isinstance(mapping, AddressSpace):
        return ret
    down_read(mapping.i_mmap_rwsem)
    ret = _visit(page, mapping.i_mmap, rmap_one, done)
    up_read(mapping.i_mmap_rwsem)
    return ret


def rmap_walk_anon(
    k: Kernel,
    page: Page,
    rmap_one: RmapOne,
    done: Callable[[Page], bool] | None = None,
    anon_vma: AnonVma | None = None,
) -> int:
    """The same of an anonymous page.

    Source:   mm/rmap.c rmap_walk_anon(), v4.3.
    Context:  holds the anon_vma's rwsem for read.
    Args:     anon_vma: with a reference of the caller's; None: found by way of page_mapped.
    """
    if anon_vma is None:
        anon_vma = page_lock_anon_vma_read(k, page)
        if anon_vma is None:
            return SWAP_AGAIN
    else:
        down_read(anon_vma.rwsem)
    ret = _visit(page, anon_vma.vmas, rmap_one, done)
    up_read(anon_vma.rwsem)
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


def page_check_address(
    k: Kernel, page: Page, vma: VmAreaStruct, address: int, *, sync: bool = False
) -> Pte | None:
    """The pte that maps a page at an address, with the ptl held; None where it does not.

    Source:   mm/rmap.c __page_check_address(), mm_find_pmd(), v4.3.
                                               Patches: fix:peek-under-ptl, fix:thp-munlock-walk.
    Args:     sync: do not peek without the lock first.
    Context:  takes the ptl where it returns a pte.
    """
    if page.nr_pages > 1:
        if FIX_THP_MUNLOCK_WALK in k.patches:
            return huge_memory.page_check_address_pmd(k, page, vma, address)
        else:
            return None  # the walk ends where a page table would begin
    pte = memory.pte_offset(vma.vm_mm, address)
    if FIX_PEEK_UNDER_PTL not in k.patches:
        if not sync and not PageHuge(page) and pte.value.kind != PRESENT:
            return None
    spin_lock(pte.lock)
    value = pte.value
    if value.kind == PRESENT and value.page is page:
        return pte
    spin_unlock(pte.lock)
    return None


def page_move_anon_rmap(page: Page, vma: VmAreaStruct) -> None:
    """The page is ours alone: rmap walks need not look at parents and siblings any more.

    Source:   mm/rmap.c page_move_anon_rmap(), v4.3.           Context: page locked, ptl held.
    Bugs:     VM_BUG: not locked; the vma has no anon_vma.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-move-anon-rmap-locked", "!PageLocked(page)")
    VM_BUG_ON_PAGE(vma.anon_vma is None, "vm-bug-move-anon-rmap-vma", "!anon_vma")
    page.mapping = vma.anon_vma


def page_dup_rmap(page: Page) -> None:
    """One mapping more of a page that is mapped. Source: include/linux/rmap.h, v4.3."""
    atomic_inc_and_test_mapcount(page)


def page_add_anon_rmap(
    page: Page, vma: VmAreaStruct, address: int, *, exclusive: bool = False
) -> None:
    """One mapping more of an anonymous page.

    Source:   mm/rmap.c page_add_anon_rmap(), do_page_add_anon_rmap(), v4.3.
    Context:  ptl held, page locked unless PageKsm.
    Bugs:     VM_BUG: page not locked. BUG: it is mapped already, but not as this would be.
    Args:     exclusive: no other process has it.
    """
    first = atomic_inc_and_test_mapcount(page)
    if first:
        page.zone.stat[NR_ANON_PAGES] += page.nr_pages
    look(page, "mapping")
    if isinstance(page._mapping, StableNode):
        return  # whom it is mapped by stands in its node
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-anon-rmap-unlocked", "!PageLocked(page)")
    if first:
        __page_set_anon_rmap(page, vma, address, exclusive)
    else:
        __page_check_anon_rmap(page, vma, address)


def __page_check_anon_rmap(page: Page, vma: VmAreaStruct, address: int) -> None:
    """Would a walk from the page's anon_vma come to this mapping of it?

    Source:   mm/rmap.c __page_check_anon_rmap(), v4.3.       Context: ptl held.
    Bugs:     BUG: an anon_vma of another tree; the page's index is of another address.
    """
    theirs, ours = page._mapping, vma.anon_vma
    kin = isinstance(theirs, AnonVma) and ours is not None and theirs.root is ours.root
    BUG_ON(not kin, "bug-check-anon-rmap-root", "page_anon_vma(page)->root != vma->anon_vma->root")
    look(page, "index")
    BUG_ON(
        page._index != memory.linear_page_index(vma, address),
        "bug-check-anon-rmap-index",
        "page->index != linear_page_index(vma, address)",
    )


def __page_set_anon_rmap(page: Page, vma: VmAreaStruct, address: int, exclusive: bool) -> None:
    """Say which anon_vma a page belongs to: the vma's own, or the root if others may map it.

    Source:   mm/rmap.c __page_set_anon_rmap(), v4.3.         Context: ptl held.
    Bugs:     BUG: the vma has no anon_vma.
    """
    anon_vma = vma.anon_vma
    BUG_ON(anon_vma is None, "bug-set-anon-rmap", "!anon_vma")
    if PageAnon(page) or anon_vma is None:
        return
    page.mapping = anon_vma if exclusive else anon_vma.root
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
    page.zone.stat[NR_ANON_PAGES] += page.nr_pages
    __page_set_anon_rmap(page, vma, address, True)


def hugepage_add_anon_rmap(page: Page, vma: VmAreaStruct, address: int) -> None:
    """One mapping more of a private huge page.

    Source:   mm/rmap.c hugepage_add_anon_rmap(), v4.3.
    Context:  ptl held, page locked.           Bugs: BUG: page not locked; no anon_vma.
    """
    locked = peek(page, PG_locked) != 0
    BUG_ON(not locked, "bug-hugepage-anon-rmap-unlocked", "!PageLocked(page)")
    if atomic_inc_and_test_mapcount(page):
        __page_set_anon_rmap(page, vma, address, False)


def hugepage_add_new_anon_rmap(page: Page, vma: VmAreaStruct, address: int) -> None:
    """The first mapping of a private huge page.

    Source:   mm/rmap.c hugepage_add_new_anon_rmap(), v4.3.    Context: ptl held.
    Bugs:     BUG: the address is outside the vma; no anon_vma.
    """
    BUG_ON(
        not vma.vm_start <= address < vma.vm_end,
        "bug-hugepage-new-anon-rmap-address",
        "address < vma->vm_start || address >= vma->vm_end",
    )
    atomic_inc_and_test_mapcount(page)
    __page_set_anon_rmap(page, vma, address, True)


def page_add_file_rmap(page: Page) -> None:
    """One mapping more of a file page. Source: mm/rmap.c, v4.3. Context: ptl held."""
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    if atomic_inc_and_test_mapcount(page):
        page.zone.stat[NR_FILE_MAPPED] += 1
        memcontrol.mem_cgroup_update_page_stat(memcg, MEM_CGROUP_STAT_FILE_MAPPED, 1)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)


def page_remove_rmap(k: Kernel, page: Page) -> None:
    """One mapping less. The last one takes PG_mlocked with it.

    Source:   mm/rmap.c page_remove_rmap(), v4.3.
    Context:  ptl held; the page lock is not needed.           Patches: e6c509f85455.
    """
    if not PageAnon(page):
        page_remove_file_rmap(k, page)
        return
    if not atomic_add_negative_mapcount(page):
        return
    if PageHuge(page):
        return  # counted nowhere, Mlocked never
    page.zone.stat[NR_ANON_PAGES] -= page.nr_pages
    if C_e6c509f85455 in k.patches:
        if PageMlocked(page):
            mlock.clear_page_mlock(k, page)


def page_remove_file_rmap(k: Kernel, page: Page) -> None:
    """One mapping of a file page less.

    Source:   mm/rmap.c page_remove_file_rmap(), v4.3.         Patches: e6c509f85455.
    Context:  ptl held; between mem_cgroup_begin_page_stat and its end also while the flag is
              cleared.
    """
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    if atomic_add_negative_mapcount(page) and not PageHuge(page):
        page.zone.stat[NR_FILE_MAPPED] -= 1
        memcontrol.mem_cgroup_update_page_stat(memcg, MEM_CGROUP_STAT_FILE_MAPPED, -1)
        if C_e6c509f85455 in k.patches:
            if PageMlocked(page):
                mlock.clear_page_mlock(k, page)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)


def page_mkclean(k: Kernel, page: Page) -> int:
    """Write-protect every pte of a file page and clear its dirty bit, so that the next write is
    noticed.

    Source:   mm/rmap.c page_mkclean(), page_mkclean_one(), v4.3.
    Context:  page locked; takes i_mmap_rwsem for read and each ptl.
    Returns:  how many ptes were dirty or writable.
    Bugs:     BUG: page not locked.
    """
    BUG_ON(not peek(page, PG_locked), "bug-page-mkclean-unlocked", "!PageLocked(page)")
    cleaned = 0
    if not page_mapped(page) or util.page_mapping(k, page) is None:
        return 0

    def page_mkclean_one(vma: VmAreaStruct, address: int) -> int:
        nonlocal cleaned
        if not vma.vm_flags & VM_SHARED:
            return SWAP_AGAIN  # invalid_mkclean_vma: a private pte is never dirty for the file
        pte = page_check_address(k, page, vma, address, sync=True)
        if pte is None:
            return SWAP_AGAIN
        value = pte.value
        if value.dirty or value.write:
            cleared = ptep_get_and_clear(pte)
            set_pte_at(pte, pte_with(cleared, write=False, dirty=False))
            cleaned += 1
        spin_unlock(pte.lock)
        return SWAP_AGAIN

    rmap_walk(k, page, page_mkclean_one)
    return cleaned


def page_referenced(k: Kernel, page: Page, is_locked: bool) -> tuple[int, int]:
    """How many ptes have used a page since this was last asked?

    Source:   mm/rmap.c page_referenced(), page_referenced_one(), v4.3.
                                               Patches: fix:ksm-referenced.
    Context:  takes each ptl, and the page lock by trylock if `is_locked` says the caller has it
              not; a plain anonymous page is walked without. ksmd may make it a KSM page since it
              was looked at.
    Returns:  (ptes that had the accessed bit, vm_flags seen there; VM_LOCKED ends the walk).
              A page whose lock is taken counts as used once.
    """
    mapcount = page_mapcount(page)
    if mapcount == 0 or page.mapping in (None, NO_STABLE_NODE):
        return 0, 0
    we_locked = False
    if not is_locked and not PageAnonNotKsm(page):
        if not trylock_page(page):
            return 1, 0
        we_locked = True
    referenced = vm_flags = 0

    def page_referenced_one(vma: VmAreaStruct, address: int) -> int:
        nonlocal mapcount, referenced, vm_flags
        if page.nr_pages > 1:
            pte = huge_memory.page_check_address_pmd(k, page, vma, address)
        else:
            pte = page_check_address(k, page, vma, address)
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

    if FIX_KSM_REFERENCED in k.patches:
        if is_locked or we_locked:
            rmap_walk(k, page, page_referenced_one)
        else:
            rmap_walk_anon(k, page, page_referenced_one)
    else:
        rmap_walk(k, page, page_referenced_one)
    if we_locked:
        unlock_page(page)
    return referenced, vm_flags


def try_to_unmap_one(k: Kernel, page: Page, vma: VmAreaStruct, address: int, flags: int) -> int:
    """Take away the one pte in `vma` that maps `page`; or, in a VM_LOCKED vma, mark the page.

    Source:   mm/rmap.c try_to_unmap_one(), v4.3.        Patches: P02, alt:trylock-under-ptl.
    Context:  page locked, rmap lock held for read; takes and drops the ptl.
    Args:     address: page number, inside `vma`.              flags: TTU_* bits.
    Returns:  SWAP_AGAIN: carry on walking. SWAP_MLOCK: a locked vma maps the page, stop.
              SWAP_FAIL: the pte was used lately, or there is no memory for a swap count.
    Bugs:     BUG (VM_BUG with P10): an anonymous page that is neither migrating nor in swap.
    Left out: hwpoison, deferred TLB flushes.
    """
    if P02 in k.patches:
        if flags & TTU_MUNLOCK and not vma.vm_flags & VM_LOCKED:
            return SWAP_AGAIN  # munlock learns nothing from a vma that is not locked

    pte = page_check_address(k, page, vma, address)  # comes back with the ptl held
    if pte is None:
        return SWAP_AGAIN

    if not flags & TTU_IGNORE_MLOCK:
        if vma.vm_flags & VM_LOCKED:
            if P02 in k.patches:
                if ALT_TRYLOCK_UNDER_PTL in k.patches:
                    ret = mlock_if_mmap_sem_free(k, page, vma)
                    spin_unlock(pte.lock)
                    return ret
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
    if not replace_pte(k, page, vma, pte, value, flags):
        set_pte_at(pte, value)
        spin_unlock(pte.lock)
        return SWAP_FAIL
    page_remove_rmap(k, page)
    swap.put_page(k, page)
    spin_unlock(pte.lock)
    return SWAP_AGAIN


def replace_pte(
    k: Kernel, page: Page, vma: VmAreaStruct, pte: Pte, value: PteVal, flags: int
) -> bool:
    """Leave in a pte that was taken away what a fault will need to find the page again.

    Source:   mm/rmap.c try_to_unmap_one(), from pte_dirty on, v4.3.   Patches: P10.
    Context:  ptl held, the pte is empty.
    Args:     value: what the pte was.
    Returns:  False: no memory for a swap count; the pte is to be as it was.
    Bugs:     as try_to_unmap_one.
    """
    rss = vma.vm_mm.rss
    if P10 in k.patches:
        if flags & TTU_MIGRATION:
            entry = migrate.make_migration_entry(page, value.write)
            set_pte_at(pte, pte_with(entry, soft_dirty=value.soft_dirty))
            return True
        if not PageAnon(page):
            rss[MM_FILEPAGES] -= 1
            return True
        VM_BUG_ON_PAGE(
            not peek(page, PG_swapcache), "vm-bug-unmap-anon-without-swap", "!PageSwapCache(page)"
        )
        return replace_by_swap_entry(k, page, rss, pte, value)
    else:
        if PageAnon(page):
            if PageSwapCache(page):
                return replace_by_swap_entry(k, page, rss, pte, value)
            BUG_ON(
                not flags & TTU_MIGRATION, "bug-unmap-anon-without-swap", "!(flags & TTU_MIGRATION)"
            )
            entry = migrate.make_migration_entry(page, value.write)
            set_pte_at(pte, pte_with(entry, soft_dirty=value.soft_dirty))
        elif flags & TTU_MIGRATION:
            # The soft-dirty bit of a file page is forgotten.
            set_pte_at(pte, migrate.make_migration_entry(page, value.write))
        else:
            rss[MM_FILEPAGES] -= 1
        return True


def replace_by_swap_entry(k: Kernel, page: Page, rss: list[int], pte: Pte, value: PteVal) -> bool:
    """Source: mm/rmap.c try_to_unmap_one(), v4.3, for a page in the swap cache.

    Context:  ptl held.                        Returns: False: no memory for the count.
    """
    slot = page.private
    if swapfile.swap_duplicate(k, slot):
        return False
    rss[MM_ANONPAGES] -= 1
    rss[MM_SWAPENTS] += 1
    set_pte_at(pte, PteVal(SWAP, swap=slot, soft_dirty=value.soft_dirty))
    k.machine.note("swap-entry-made", page, pte)
    return True


def mlock_if_mmap_sem_free(k: Kernel, page: Page, vma: VmAreaStruct) -> int:
    """Mark a page found in a VM_LOCKED vma; with the ptl gone, mmap_sem is to keep VM_LOCKED.

    Source:   mm/rmap.c try_to_unmap_one(), from out_mlock, v4.3.      Patches: alt:mm-users.
    Context:  page locked, rmap lock held for read. exit_mmap holds no mmap_sem.
    Returns:  SWAP_MLOCK where it was marked; SWAP_AGAIN where mmap_sem is taken or VM_LOCKED gone.
    """
    ret = SWAP_AGAIN
    mm = vma.vm_mm
    if down_read_trylock(mm.mmap_sem):
        if ALT_MM_USERS in k.patches:
            if mm_users(mm) == 0:
                up_read(mm.mmap_sem)
                return ret
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
    Bugs:     VM_BUG: a transparent huge page.
    """
    VM_BUG_ON_PAGE(
        page.nr_pages > 1,
        "vm-bug-try-to-unmap-huge",
        "!PageHuge(page) && PageTransHuge(page)",
    )
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
        not peek(page, PG_locked) or peek(page, PG_lru) != 0,
        "vm-bug-try-to-munlock",
        "!PageLocked(page) || PageLRU(page)",
    )
    return rmap_walk(
        k,
        page,
        lambda vma, address: try_to_unmap_one(k, page, vma, address, TTU_MUNLOCK),
        done=page_not_mapped,
    )
