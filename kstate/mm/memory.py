"""mm/memory.c: page faults, and taking mappings away."""

from __future__ import annotations

from kstate.flags import (
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SWAPENTS,
    VM_FAULT_ERROR,
    VM_FAULT_LOCKED,
    VM_FAULT_MAJOR,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_WRITE,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
)
from kstate.fs import fuse
from kstate.machine import (
    down_read,
    down_write,
    look,
    spin_lock,
    spin_unlock,
    touch,
    up_read,
    up_write,
)
from kstate.mm import (
    filemap,
    huge_memory,
    hugetlb,
    ksm,
    memcontrol,
    migrate,
    mlock,
    page_alloc,
    page_writeback,
    rmap,
    shmem,
    swap,
    swap_state,
    swapfile,
)
from kstate.pageflags import (
    PageAnon,
    PageAnonNotKsm,
    PageMlocked,
    PageSwapCache,
    PageUptodate,
    SetPageUptodate,
    get_page,
    lock_page,
    trylock_page,
    unlock_page,
)
from kstate.patches import C_48ec833b7851
from kstate.structs import (
    MIGRATION,
    NONE,
    PRESENT,
    SWAP,
    AddressSpace,
    Kernel,
    MmStruct,
    Page,
    Pte,
    PteVal,
    VmAreaStruct,
    pte_mkdirty,
    pte_same,
    pte_with,
    ptep_get_and_clear,
    ptep_set_wrprotect,
    set_pte_at,
)

FAULT_AROUND_PAGES = 16


def pte_offset(mm: MmStruct, address: int) -> Pte:
    """The slot for an address. The page table itself is always there. No step."""
    pte = mm.ptes.get(address)
    if pte is None:
        pte = mm.ptes[address] = Pte(mm, address)
    return pte


def linear_page_index(vma: VmAreaStruct, address: int) -> int:
    """Offset in the file, or in the anonymous object, pages. Source: include/linux/pagemap.h."""
    return address - vma.vm_start + vma.vm_pgoff


def handle_mm_fault(k: Kernel, vma: VmAreaStruct, address: int, flags: int) -> int:
    """Resolve one fault.

    Source:   mm/memory.c handle_mm_fault(), handle_pte_fault(), v4.3.
    Context:  mmap_sem held for read (dropped with VM_FAULT_RETRY); takes the ptl.
    Returns:  VM_FAULT_* bits; 0 means try the access again, VM_FAULT_FROZEN once what was met
              half-way has changed.
    Left out: NUMA hinting (see do_huge_pmd_numa_page), userfaultfd.
    """
    if vma.hugetlb:
        return hugetlb.hugetlb_fault(k, vma, address, flags)
    pte = pte_offset(vma.vm_mm, address)
    entry = pte.value
    if entry.kind == NONE:
        if vma.vm_file is None:
            if vma._vm_flags & VM_HUGEPAGE and not pte.has_table:
                return huge_memory.do_huge_pmd_anonymous_page(k, vma, address, pte, flags)
            return do_anonymous_page(k, vma, address, pte, flags)
        return do_fault(k, vma, address, pte, flags, entry)
    if entry.kind != PRESENT:
        return do_swap_page(k, vma, address, pte, flags, entry)
    if entry.page is not None and entry.page.nr_pages > 1:
        return huge_memory.huge_pmd_fault(k, vma, address, pte, flags, entry)
    spin_lock(pte.lock)
    if not pte_same(pte.value, entry):
        spin_unlock(pte.lock)
        return 0
    if flags & FAULT_FLAG_WRITE:
        if not entry.write:
            return do_wp_page(k, vma, address, pte, entry)
        # x86's ptep_set_access_flags() stores for a write only; a read's bit is the MMU's to set.
        changed = pte_mkdirty(pte_with(entry, young=True))
        if not pte_same(entry, changed):
            set_pte_at(pte, changed)
    spin_unlock(pte.lock)
    return 0


def do_anonymous_page(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int) -> int:
    """First touch of anonymous memory: the zero page for a read, a page of one's own for a write.

    Source:   mm/memory.c do_anonymous_page(), v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    Left out: userfaultfd, stack guard pages.
    """
    if not flags & FAULT_FLAG_WRITE:
        spin_lock(pte.lock)
        if pte.value.kind == NONE:
            set_pte_at(pte, PteVal(PRESENT, None, young=True))
        spin_unlock(pte.lock)
        return 0
    rmap.anon_vma_prepare(vma)
    page = page_alloc.alloc_page(k)
    if page is None:
        return VM_FAULT_OOM
    error, memcg = memcontrol.mem_cgroup_try_charge(k, page, vma.vm_mm)
    if error:
        swap.put_page(k, page)
        return VM_FAULT_OOM
    SetPageUptodate(page)
    writable = bool(vma.vm_flags & VM_WRITE)
    spin_lock(pte.lock)
    if pte.value.kind != NONE:
        memcontrol.mem_cgroup_cancel_charge(memcg)
        swap.put_page(k, page)
        spin_unlock(pte.lock)
        return 0
    vma.vm_mm.rss[MM_ANONPAGES] += 1
    rmap.page_add_new_anon_rmap(page, vma, address)
    memcontrol.mem_cgroup_commit_charge(page, memcg)
    swap.lru_cache_add_active_or_unevictable(k, page, vma)
    entry = PteVal(PRESENT, page, young=True)
    if writable:
        entry = pte_mkdirty(pte_with(entry, write=True))
    set_pte_at(pte, entry)
    spin_unlock(pte.lock)
    return 0


def do_fault(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int, orig: PteVal) -> int:
    """First touch of a file page.

    Source:   mm/memory.c do_fault(), v4.3.    Context: mmap_sem held for read.
    """
    pgoff = linear_page_index(vma, address)
    if not flags & FAULT_FLAG_WRITE:
        return do_read_fault(k, vma, address, pte, pgoff, flags, orig)
    if not vma.vm_flags & VM_SHARED:
        return do_cow_fault(k, vma, address, pte, pgoff, flags, orig)
    return do_shared_fault(k, vma, address, pte, pgoff, flags, orig)


def __do_fault(k: Kernel, vma: VmAreaStruct, pgoff: int, flags: int) -> tuple[int, Page | None]:
    """The file's own ->fault: the page comes back locked, with a reference.

    Source:   mm/memory.c __do_fault(), v4.3.
    """
    assert vma.vm_file is not None
    if vma.vm_file.shmem:
        return shmem.shmem_fault(k, vma, pgoff, flags)
    return filemap.filemap_fault(k, vma, pgoff, flags)


def do_read_fault(
    k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, pgoff: int, flags: int, orig: PteVal
) -> int:
    """Read fault on a file: map what is cached around it, else ask the file.

    Source:   mm/memory.c do_read_fault(), v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    """
    spin_lock(pte.lock)
    do_fault_around(k, vma, address, pgoff)
    if not pte_same(pte.value, orig):
        spin_unlock(pte.lock)
        return 0
    spin_unlock(pte.lock)
    ret, page = __do_fault(k, vma, pgoff, flags)
    if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY) or page is None:
        return ret
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig):
        spin_unlock(pte.lock)
        unlock_page(page)
        swap.put_page(k, page)
        return ret
    do_set_pte(k, vma, page, pte, address, write=False, anon=False)
    unlock_page(page)
    spin_unlock(pte.lock)
    return ret


def do_fault_around(k: Kernel, vma: VmAreaStruct, address: int, pgoff: int) -> None:
    """Choose the window of a fault-around: 16 aligned pages, clipped to the vma.

    Source:   mm/memory.c do_fault_around(), v4.3.             Context: ptl held.
    """
    start = max(address & ~(FAULT_AROUND_PAGES - 1), vma.vm_start)
    pgoff -= address - start
    max_pgoff = min(pgoff + FAULT_AROUND_PAGES - 1, vma.vm_end - vma.vm_start + vma.vm_pgoff - 1)
    while pte_offset(vma.vm_mm, start).value.kind != NONE:
        pgoff += 1
        start += 1
        if pgoff > max_pgoff or start >= vma.vm_end:
            return
    filemap.filemap_map_pages(k, vma, start, pgoff, max_pgoff)


def do_cow_fault(
    k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, pgoff: int, flags: int, orig: PteVal
) -> int:
    """Write fault on a private file mapping: a copy of one's own, from the start.

    Source:   mm/memory.c do_cow_fault(), v4.3.
    Context:  mmap_sem held for read; takes the ptl, the file page locked.
    """
    rmap.anon_vma_prepare(vma)
    new_page = page_alloc.alloc_page(k)
    if new_page is None:
        return VM_FAULT_OOM
    error, memcg = memcontrol.mem_cgroup_try_charge(k, new_page, vma.vm_mm)
    if error:
        swap.put_page(k, new_page)
        return VM_FAULT_OOM
    ret, fault_page = __do_fault(k, vma, pgoff, flags)
    if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY) or fault_page is None:
        memcontrol.mem_cgroup_cancel_charge(memcg)
        swap.put_page(k, new_page)
        return ret
    copy_user_highpage(k, new_page, fault_page)
    SetPageUptodate(new_page)
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig):
        spin_unlock(pte.lock)
        unlock_page(fault_page)
        swap.put_page(k, fault_page)
        memcontrol.mem_cgroup_cancel_charge(memcg)
        swap.put_page(k, new_page)
        return ret
    do_set_pte(k, vma, new_page, pte, address, write=True, anon=True)
    memcontrol.mem_cgroup_commit_charge(new_page, memcg)
    swap.lru_cache_add_active_or_unevictable(k, new_page, vma)
    spin_unlock(pte.lock)
    unlock_page(fault_page)
    swap.put_page(k, fault_page)
    return ret


def copy_user_highpage(k: Kernel, to: Page, page: Page) -> None:
    """Copy what is in a page. Source: include/linux/highmem.h copy_user_highpage(), v4.3.

    Context:  nobody else has `to`; `page` may be written meanwhile where a pte still maps it
              writable, which no caller leaves so."""
    look(page, "content")
    touch(to, "content")
    to._token = page._token
    k.machine.note("page-copied", page, to)


def do_shared_fault(
    k: Kernel,
    vma: VmAreaStruct,
    address: int,
    pte: Pte,
    pgoff: int,
    flags: int,
    orig: PteVal,
) -> int:
    """Write fault on a shared file mapping.

    Source:   mm/memory.c do_shared_fault(), v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    Left out: throttling of dirtiers, file times.
    """
    ret, page = __do_fault(k, vma, pgoff, flags)
    if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY) or page is None:
        return ret
    assert vma.vm_file is not None
    if not vma.vm_file.shmem:
        unlock_page(page)
        made = do_page_mkwrite(k, vma, page)
        if not made & VM_FAULT_LOCKED:
            swap.put_page(k, page)
            return made
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig):
        spin_unlock(pte.lock)
        unlock_page(page)
        swap.put_page(k, page)
        return ret
    do_set_pte(k, vma, page, pte, address, write=True, anon=False)
    spin_unlock(pte.lock)
    page_writeback.set_page_dirty(k, page)
    unlock_page(page)
    return ret


def do_page_mkwrite(k: Kernel, vma: VmAreaStruct, page: Page) -> int:
    """Tell a file that a page of it is about to be written to, through a shared mapping.

    Source:   mm/memory.c do_page_mkwrite(), v4.3.
    Context:  page not locked; comes back locked with VM_FAULT_LOCKED.
    """
    assert vma.vm_file is not None
    if vma.vm_file.fs == "fuse":
        return fuse.fuse_page_mkwrite(k, vma, page)
    return filemap.filemap_page_mkwrite(k, vma, page)


def do_set_pte(
    k: Kernel, vma: VmAreaStruct, page: Page, pte: Pte, address: int, *, write: bool, anon: bool
) -> None:
    """Map a page of a file, or a private copy of one; the caller's reference becomes the pte's.

    Source:   mm/memory.c do_set_pte(), v4.3.  Context: ptl held.
    """
    entry = PteVal(PRESENT, page, write=vma.prot_write, young=True)
    if write:
        writable = vma.prot_write or bool(vma.vm_flags & VM_WRITE)
        entry = pte_mkdirty(pte_with(entry, write=writable))
    if anon:
        vma.vm_mm.rss[MM_ANONPAGES] += 1
        rmap.page_add_new_anon_rmap(page, vma, address)
    else:
        vma.vm_mm.rss[MM_FILEPAGES] += 1
        rmap.page_add_file_rmap(page)
    set_pte_at(pte, entry)


def do_swap_page(
    k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int, orig: PteVal
) -> int:
    """Fault on a pte that is neither empty nor present: wait for a migration, or swap in.

    Source:   mm/memory.c do_swap_page(), v4.3.
    Context:  mmap_sem held for read (dropped with VM_FAULT_RETRY); takes the page lock, the ptl.
    Left out: hwpoison.
    """
    if orig.kind == MIGRATION:
        return migrate.migration_entry_wait(k, pte)
    slot = orig.swap
    ret = 0
    page = swap_state.lookup_swap_cache(k, slot)
    if page is None:
        page = swap_state.swapin_readahead(k, slot)
        if page is None:
            spin_lock(pte.lock)
            if pte_same(pte.value, orig):
                ret = VM_FAULT_OOM
            spin_unlock(pte.lock)
            return ret
        ret = VM_FAULT_MAJOR
    if not filemap.lock_page_or_retry(page, vma.vm_mm, flags):
        swap.put_page(k, page)
        return ret | VM_FAULT_RETRY
    # It may have left the swap cache, or come back for another slot, while nobody held its lock.
    if not PageSwapCache(page) or page.private != slot:
        unlock_page(page)
        swap.put_page(k, page)
        return ret
    swapcache = page
    copy = ksm.ksm_might_need_to_copy(k, swapcache, vma, address)
    if copy is None:
        _unlock_and_put(k, swapcache, swapcache)
        return VM_FAULT_OOM
    page = copy
    error, memcg = memcontrol.mem_cgroup_try_charge(k, page, vma.vm_mm)
    if error:
        _unlock_and_put(k, page, swapcache)
        return VM_FAULT_OOM
    spin_lock(pte.lock)
    same = pte_same(pte.value, orig)
    if not same or not PageUptodate(page):
        memcontrol.mem_cgroup_cancel_charge(memcg)
        spin_unlock(pte.lock)
        _unlock_and_put(k, page, swapcache)
        return ret if not same else VM_FAULT_SIGBUS
    mm = vma.vm_mm
    mm.rss[MM_ANONPAGES] += 1
    mm.rss[MM_SWAPENTS] -= 1
    entry = PteVal(PRESENT, page, write=vma.prot_write, young=True)
    exclusive = False
    if flags & FAULT_FLAG_WRITE and swapfile.reuse_swap_page(k, page):
        entry = pte_mkdirty(pte_with(entry, write=bool(vma.vm_flags & VM_WRITE)))
        flags &= ~FAULT_FLAG_WRITE
        ret |= VM_FAULT_WRITE
        exclusive = True
    if orig.soft_dirty:
        entry = pte_with(entry, soft_dirty=True)
    set_pte_at(pte, entry)
    if page is swapcache:
        rmap.page_add_anon_rmap(page, vma, address, exclusive=exclusive)
        memcontrol.mem_cgroup_commit_charge(page, memcg, lrucare=True)
    else:
        rmap.page_add_new_anon_rmap(page, vma, address)
        memcontrol.mem_cgroup_commit_charge(page, memcg, lrucare=False)
        swap.lru_cache_add_active_or_unevictable(k, page, vma)
    swapfile.swap_free(k, slot)
    if swapfile.vm_swap_full(k) or vma.vm_flags & VM_LOCKED or PageMlocked(page):
        swapfile.try_to_free_swap(k, page)
    unlock_page(page)
    if page is not swapcache:
        unlock_page(swapcache)  # held until here, that its slot is not used for another
        swap.put_page(k, swapcache)
    if flags & FAULT_FLAG_WRITE:
        ret |= do_wp_page(k, vma, address, pte, entry)
        return ret & VM_FAULT_ERROR if ret & VM_FAULT_ERROR else ret
    spin_unlock(pte.lock)
    return ret


def _unlock_and_put(k: Kernel, page: Page, swapcache: Page) -> None:
    unlock_page(page)
    swap.put_page(k, page)
    if page is not swapcache:
        unlock_page(swapcache)
        swap.put_page(k, swapcache)


def do_wp_page(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, orig: PteVal) -> int:
    """Write to a present, read-only pte.

    Source:   mm/memory.c do_wp_page(), v4.3.
    Context:  mmap_sem held for read, ptl held; drops the ptl.
    """
    page = orig.page
    if page is None:
        spin_unlock(pte.lock)
        return wp_page_copy(k, vma, address, pte, orig, None)
    if PageAnonNotKsm(page):
        if not trylock_page(page):
            get_page(page)
            spin_unlock(pte.lock)
            lock_page(page)
            spin_lock(pte.lock)
            if not pte_same(pte.value, orig):
                unlock_page(page)
                spin_unlock(pte.lock)
                swap.put_page(k, page)
                return 0
            swap.put_page(k, page)
        if swapfile.reuse_swap_page(k, page):
            rmap.page_move_anon_rmap(page, vma)  # the page lock keeps rmap walks away
            unlock_page(page)
            return wp_page_reuse(k, vma, pte, orig)
        unlock_page(page)
    elif vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED:
        return wp_page_shared(k, vma, pte, orig, page)
    get_page(page)
    spin_unlock(pte.lock)
    return wp_page_copy(k, vma, address, pte, orig, page)


def wp_page_reuse(k: Kernel, vma: VmAreaStruct, pte: Pte, orig: PteVal) -> int:
    """Make the pte writable in place.

    Source:   mm/memory.c wp_page_reuse(), v4.3.              Context: ptl held, dropped.
    """
    writable = bool(vma.vm_flags & VM_WRITE)
    set_pte_at(pte, pte_mkdirty(pte_with(orig, write=writable, young=True)))
    spin_unlock(pte.lock)
    return VM_FAULT_WRITE


def wp_page_shared(k: Kernel, vma: VmAreaStruct, pte: Pte, orig: PteVal, page: Page) -> int:
    """Write to a read-only pte of a shared file mapping.

    Source:   mm/memory.c wp_page_shared(), v4.3.
    Context:  ptl held, dropped around page_mkwrite, dropped at the end.
    """
    get_page(page)
    assert vma.vm_file is not None
    if vma.vm_file.shmem:
        ret = wp_page_reuse(k, vma, pte, orig)
        lock_page(page)
    else:
        spin_unlock(pte.lock)
        made = do_page_mkwrite(k, vma, page)
        if not made & VM_FAULT_LOCKED:
            swap.put_page(k, page)
            return made
        spin_lock(pte.lock)
        if not pte_same(pte.value, orig):
            unlock_page(page)
            spin_unlock(pte.lock)
            swap.put_page(k, page)
            return 0
        ret = wp_page_reuse(k, vma, pte, orig)
    page_writeback.set_page_dirty(k, page)
    unlock_page(page)
    swap.put_page(k, page)
    return ret


def wp_page_copy(
    k: Kernel,
    vma: VmAreaStruct,
    address: int,
    pte: Pte,
    orig: PteVal,
    old_page: Page | None,
) -> int:
    """Copy on write.

    Source:   mm/memory.c wp_page_copy(), v4.3.
    Context:  mmap_sem held for read; takes the ptl, then the old page's lock in a VM_LOCKED vma.
    Args:     old_page: with a reference, which is dropped; None for the zero page.
    """
    rmap.anon_vma_prepare(vma)
    new_page = page_alloc.alloc_page(k)
    if new_page is None:
        if old_page is not None:
            swap.put_page(k, old_page)
        return VM_FAULT_OOM
    if old_page is not None:
        copy_user_highpage(k, new_page, old_page)
    error, memcg = memcontrol.mem_cgroup_try_charge(k, new_page, vma.vm_mm)
    if error:
        swap.put_page(k, new_page)
        if old_page is not None:
            swap.put_page(k, old_page)
        return VM_FAULT_OOM
    SetPageUptodate(new_page)
    copied = False
    spin_lock(pte.lock)
    if pte_same(pte.value, orig):
        rss = vma.vm_mm.rss
        if old_page is None:
            rss[MM_ANONPAGES] += 1
        elif not PageAnon(old_page):
            rss[MM_FILEPAGES] -= 1
            rss[MM_ANONPAGES] += 1
        writable = bool(vma.vm_flags & VM_WRITE)
        entry = pte_mkdirty(PteVal(PRESENT, new_page, write=writable, young=True))
        ptep_get_and_clear(pte)
        rmap.page_add_new_anon_rmap(new_page, vma, address)
        memcontrol.mem_cgroup_commit_charge(new_page, memcg)
        swap.lru_cache_add_active_or_unevictable(k, new_page, vma)
        set_pte_at(pte, entry)
        if old_page is not None:
            rmap.page_remove_rmap(k, old_page)
            swap.put_page(k, old_page)
        copied = True
    else:
        memcontrol.mem_cgroup_cancel_charge(memcg)
        swap.put_page(k, new_page)
    spin_unlock(pte.lock)
    if old_page is not None:
        if copied and vma.vm_flags & VM_LOCKED:
            lock_page(old_page)
            mlock.munlock_vma_page(k, old_page)
            unlock_page(old_page)
        swap.put_page(k, old_page)
    return VM_FAULT_WRITE if copied else 0


def copy_page_range(k: Kernel, child: VmAreaStruct, parent: VmAreaStruct) -> None:
    """Copy the ptes of one vma at fork.

    Source:   mm/memory.c copy_page_range(), copy_pte_range(), v4.3.
    Context:  both mmap_sems held for write; takes both ptls, the child's first. Where a swap count
              is full both are let go, to make room for a longer one (add_swap_count_continuation).
    Left out: breaks for waiters.
    """
    if parent.hugetlb:
        hugetlb.copy_hugetlb_page_range(k, child, parent)
        return
    if parent.anon_vma is None:
        return  # faults will fill it in
    address = parent.vm_start
    while address < parent.vm_end:
        spin_lock(child.vm_mm.page_table_lock)
        spin_lock(parent.vm_mm.page_table_lock)
        while address < parent.vm_end and copy_one_pte(k, child, parent, address):
            address += 1
        spin_unlock(parent.vm_mm.page_table_lock)
        spin_unlock(child.vm_mm.page_table_lock)


def copy_one_pte(k: Kernel, child: VmAreaStruct, parent: VmAreaStruct, address: int) -> bool:
    """Copy what stands at one address.

    Source:   mm/memory.c copy_one_pte(), v4.3.
    Context:  both ptls held.
    Returns:  False: nothing copied, the swap count is full.
    Bugs:     BUG: a migration entry whose page is not locked.
    """
    src, dst = parent.vm_mm, child.vm_mm
    pte = pte_offset(src, address)
    value = pte.value
    if pte.has_table:
        pte_offset(dst, address).has_table = True
    if value.kind == NONE:
        return True
    cow = parent.vm_flags & VM_SHARED == 0
    if value.kind == SWAP:
        if swapfile.swap_duplicate(k, value.swap):
            return False
        dst.rss[MM_SWAPENTS] += 1
    elif value.kind == MIGRATION:
        page = migrate.migration_entry_to_page(value)
        dst.rss[MM_ANONPAGES if PageAnon(page) else MM_FILEPAGES] += 1
        if value.write and cow:
            value = pte_with(value, write=False)
            set_pte_at(pte, value)
    else:
        value = ptep_set_wrprotect(pte) if cow else pte_with(value, dirty=False)
        value = pte_with(value, young=False)
        mapped = value.page
        if mapped is not None:
            get_page(mapped)
            rmap.page_dup_rmap(mapped)
            counter = MM_ANONPAGES if PageAnon(mapped) else MM_FILEPAGES
            dst.rss[counter] += mapped.nr_pages
    set_pte_at(pte_offset(dst, address), value)
    return True


def unmap_mapping_range(
    k: Kernel, mapping: AddressSpace, start: int, end: int | None, *, even_cows: bool
) -> None:
    """Take away every mapping of a range of a file.

    Source:   mm/memory.c unmap_mapping_range(), zap_page_range_single(), v4.3.
    Context:  takes i_mmap_rwsem for write; neither mmap_sem nor anon_vma lock.
                                               Patches: 48ec833b7851.
    Args:     start, end: page offsets; end None: to the end. even_cows: private copies too, and
              what stands for them in the page table.
    """
    if C_48ec833b7851 in k.patches:
        down_write(mapping.i_mmap_rwsem)
    else:
        down_read(mapping.i_mmap_rwsem)
    for vma in mapping.i_mmap:
        last = vma.vm_pgoff + vma.vm_end - vma.vm_start
        first = max(start, vma.vm_pgoff)
        last = last if end is None else min(end, last)
        if first < last:
            address = vma.vm_start + first - vma.vm_pgoff
            zap_page_range(k, vma, address, address + last - first, None if even_cows else mapping)
    if C_48ec833b7851 in k.patches:
        up_write(mapping.i_mmap_rwsem)
    else:
        up_read(mapping.i_mmap_rwsem)


def zap_page_range(
    k: Kernel,
    vma: VmAreaStruct,
    start: int,
    end: int,
    check_mapping: AddressSpace | None = None,
) -> None:
    """Unmap a range of one vma and release its pages.

    Source:   mm/memory.c zap_page_range(), v4.3.             Args: as unmap_page_range.
    """
    swap.lru_add_drain(k)
    gathered: list[Page] = []
    unmap_page_range(k, gathered, vma, start, end, check_mapping)
    tlb_finish_mmu(k, gathered)


def unmap_page_range(
    k: Kernel,
    gathered: list[Page],
    vma: VmAreaStruct,
    start: int,
    end: int,
    check_mapping: AddressSpace | None = None,
) -> None:
    """Take away every mapping in a range of one vma.

    Source:   mm/memory.c unmap_page_range(), zap_pte_range(), v4.3.
    Context:  takes the ptl once for the range; the page lock is not needed.
    Args:     gathered: the mmu_gather: pages whose references are to be dropped once the TLB is
              flushed. That is done here where a page of a file was dirty, for all that are in it.
              start, end: page numbers. check_mapping: only pages of this file, and nothing that is
              not present (zap_details).
    Bugs:     BUG: a migration entry whose page is not locked. Reports Bad page map.
    """
    if vma.hugetlb:
        gathered += hugetlb.__unmap_hugepage_range(k, vma, start, end)
        return
    mm = vma.vm_mm
    force_flush = False
    spin_lock(mm.page_table_lock)
    for address in range(start, end):
        pte = pte_offset(mm, address)
        value = pte.value
        if value.kind == NONE:
            continue
        if value.kind == PRESENT:
            page = value.page
            if check_mapping is not None and page is not None and page.mapping is not check_mapping:
                continue
            value = ptep_get_and_clear(pte)
            if page is None:
                continue
            if PageAnon(page):
                mm.rss[MM_ANONPAGES] -= page.nr_pages
            else:
                if value.dirty:
                    force_flush = True
                    page_writeback.set_page_dirty(k, page)
                if value.young:
                    swap.mark_page_accessed(k, page)
                mm.rss[MM_FILEPAGES] -= 1
            rmap.page_remove_rmap(k, page)
            look(page, "mapcount")
            if page._mapcount < 0:
                k.machine.report(
                    "bad-page-map",
                    f"BUG: Bad page map in process {mm.name} pfn:{page.pfn:05x}",
                    "mm/memory.py:unmap_page_range",
                    page,
                )
            gathered.append(page)
            continue
        if check_mapping is not None:
            continue
        if value.kind == SWAP:
            mm.rss[MM_SWAPENTS] -= 1
            swapfile.free_swap_and_cache(k, value.swap)
        else:
            page = migrate.migration_entry_to_page(value)
            mm.rss[MM_ANONPAGES if PageAnon(page) else MM_FILEPAGES] -= 1
        ptep_get_and_clear(pte)
    spin_unlock(mm.page_table_lock)
    if force_flush:
        # A page that was dirty in a pte is not to be cleaned before the TLB is flushed.
        tlb_finish_mmu(k, gathered)
        gathered.clear()


def tlb_finish_mmu(k: Kernel, gathered: list[Page]) -> None:
    """Release the pages that an unmapping gathered.

    Source:   mm/memory.c tlb_finish_mmu(), mm/swap_state.c free_pages_and_swap_cache(), v4.3.
    """
    if gathered:
        swap.lru_add_drain(k)
        for page in gathered:
            swap_state.free_swap_cache(k, page)
        swap.release_pages(k, gathered)


def vma_wants_writenotify(vma: VmAreaStruct) -> bool:
    """Must the first write through a shared mapping fault?

    Source:   mm/mmap.c vma_wants_writenotify(), v4.3.
    Context:  mmap_sem held for write. Where prot_write is not yet what the flags give, soft-dirty
              tracking is not asked for: so it is when mprotect has just allowed to write.
    """
    vm_flags = vma._vm_flags  # the caller's own store: nobody else stores it now
    if vm_flags & (VM_SHARED | VM_WRITE) != VM_SHARED | VM_WRITE:
        return False
    mapping = vma.vm_file
    if mapping is not None and not mapping.shmem and mapping.fs != "hugetlbfs":
        return True  # it has a page_mkwrite to be told with
    return vma.prot_write and not vm_flags & VM_SOFTDIRTY


def vma_set_page_prot(vma: VmAreaStruct) -> None:
    """What protection a new pte of this vma begins with: writable only where it is shared, may be
    written, and nobody wants to be told.

    Source:   mm/mmap.c vma_set_page_prot(), v4.3.
    Context:  mmap_sem held for write.
    """
    vma.prot_write = vma._vm_flags & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE
    if vma_wants_writenotify(vma):
        vma.prot_write = False
