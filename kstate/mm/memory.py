"""mm/memory.c: page faults, and taking mappings away."""

from __future__ import annotations

from kstate.flags import (
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    MM_FILEPAGES,
    VM_FAULT_ERROR,
    VM_FAULT_LOCKED,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_WRITE,
    VM_SHARED,
    VM_WRITE,
)
from kstate.machine import spin_lock, spin_unlock
from kstate.mm import filemap, migrate, page_alloc, page_writeback, rmap, shmem, swap
from kstate.pageflags import SetPageUptodate, get_page, lock_page, trylock_page, unlock_page
from kstate.structs import (
    MIGRATION,
    NONE,
    PRESENT,
    AddressSpace,
    AnonVma,
    Kernel,
    MmStruct,
    Page,
    Pte,
    PteVal,
    VmAreaStruct,
    pte_same,
    pte_with,
    ptep_get_and_clear,
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
    Left out: huge pages, NUMA hinting, swap entries, userfaultfd.
    """
    pte = pte_offset(vma.vm_mm, address)
    entry = pte.value
    if entry.kind == NONE:
        if vma.vm_file is None:
            return do_anonymous_page(k, vma, address, pte, flags)
        return do_fault(k, vma, address, pte, flags, entry)
    if entry.kind == MIGRATION:
        return migrate.migration_entry_wait(k, pte)
    spin_lock(pte.lock)
    if not pte_same(pte.value, entry):
        spin_unlock(pte.lock)
        return 0
    if flags & FAULT_FLAG_WRITE:
        if not entry.write:
            return do_wp_page(k, vma, address, pte, entry)
        # x86's ptep_set_access_flags() stores for a write only; a read's bit is the MMU's to set.
        changed = pte_with(entry, write=True, dirty=True, young=True)
        if not pte_same(entry, changed):
            set_pte_at(pte, changed)
    spin_unlock(pte.lock)
    return 0


def do_anonymous_page(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int) -> int:
    """First touch of anonymous memory: the zero page for a read, a page of one's own for a write.

    Source:   mm/memory.c do_anonymous_page(), v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    Left out: memcg, userfaultfd, stack guard pages.
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
    SetPageUptodate(page)
    writable = bool(vma.vm_flags & VM_WRITE)
    spin_lock(pte.lock)
    if pte.value.kind != NONE:
        swap.put_page(k, page)
        spin_unlock(pte.lock)
        return 0
    vma.vm_mm.rss[MM_ANONPAGES] += 1
    rmap.page_add_new_anon_rmap(page, vma, address)
    swap.lru_cache_add_active_or_unevictable(k, page, vma)
    set_pte_at(pte, PteVal(PRESENT, page, write=writable, dirty=writable, young=True))
    spin_unlock(pte.lock)
    return 0


def do_fault(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int, orig: PteVal) -> int:
    """First touch of a file page.

    Source:   mm/memory.c do_fault(), v4.3.    Context: mmap_sem held for read.
    Left out: private writable mappings (do_cow_fault).
    """
    pgoff = linear_page_index(vma, address)
    if not flags & FAULT_FLAG_WRITE:
        return do_read_fault(k, vma, address, pte, pgoff, flags, orig)
    return do_shared_fault(k, vma, pte, pgoff, flags, orig)


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
    do_set_pte(k, vma, page, pte, write=False, anon=False)
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


def do_shared_fault(
    k: Kernel, vma: VmAreaStruct, pte: Pte, pgoff: int, flags: int, orig: PteVal
) -> int:
    """Write fault on a shared file mapping.

    Source:   mm/memory.c do_shared_fault(), do_page_mkwrite(), v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    Left out: throttling of dirtiers, file times.
    """
    ret, page = __do_fault(k, vma, pgoff, flags)
    if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY) or page is None:
        return ret
    assert vma.vm_file is not None
    if not vma.vm_file.shmem:
        unlock_page(page)
        made = filemap.filemap_page_mkwrite(k, vma, page)
        if not made & VM_FAULT_LOCKED:
            swap.put_page(k, page)
            return made
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig):
        spin_unlock(pte.lock)
        unlock_page(page)
        swap.put_page(k, page)
        return ret
    do_set_pte(k, vma, page, pte, write=True, anon=False)
    spin_unlock(pte.lock)
    page_writeback.set_page_dirty(k, page)
    unlock_page(page)
    return ret


def do_set_pte(
    k: Kernel, vma: VmAreaStruct, page: Page, pte: Pte, *, write: bool, anon: bool
) -> None:
    """Map a file page; the caller's reference becomes the pte's.

    Source:   mm/memory.c do_set_pte(), v4.3.  Context: ptl held.
    Left out: anonymous copies (`anon` is False here).
    """
    vma.vm_mm.rss[MM_ANONPAGES if anon else MM_FILEPAGES] += 1
    rmap.page_add_file_rmap(page)
    writable = vma.prot_write or (write and bool(vma.vm_flags & VM_WRITE))
    set_pte_at(pte, PteVal(PRESENT, page, write=writable, dirty=write, young=True))


def do_wp_page(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, orig: PteVal) -> int:
    """Write to a present, read-only pte.

    Source:   mm/memory.c do_wp_page(), reuse_swap_page(), v4.3.
    Context:  mmap_sem held for read, ptl held; drops the ptl.
    Left out: swap cache, KSM, private file mappings. An anonymous page without fork is ours alone.
    """
    page = orig.page
    if page is None:
        spin_unlock(pte.lock)
        return wp_page_copy_zero(k, vma, address, pte, orig)
    if isinstance(page.mapping, AnonVma):
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
        unlock_page(page)
        return wp_page_reuse(k, vma, pte, orig)
    return wp_page_shared(k, vma, pte, orig, page)


def wp_page_reuse(k: Kernel, vma: VmAreaStruct, pte: Pte, orig: PteVal) -> int:
    """Make the pte writable in place.

    Source:   mm/memory.c wp_page_reuse(), v4.3.              Context: ptl held, dropped.
    """
    writable = bool(vma.vm_flags & VM_WRITE)
    set_pte_at(pte, pte_with(orig, write=writable, dirty=True, young=True))
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
        made = filemap.filemap_page_mkwrite(k, vma, page)
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


def wp_page_copy_zero(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, orig: PteVal) -> int:
    """Write to the zero page: a page of one's own takes its place.

    Source:   mm/memory.c wp_page_copy() for a pte without a page, v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    """
    rmap.anon_vma_prepare(vma)
    page = page_alloc.alloc_page(k)
    if page is None:
        return VM_FAULT_OOM
    SetPageUptodate(page)
    spin_lock(pte.lock)
    if not pte_same(pte.value, orig):
        swap.put_page(k, page)
        spin_unlock(pte.lock)
        return 0
    vma.vm_mm.rss[MM_ANONPAGES] += 1
    writable = bool(vma.vm_flags & VM_WRITE)
    ptep_get_and_clear(pte)
    rmap.page_add_new_anon_rmap(page, vma, address)
    swap.lru_cache_add_active_or_unevictable(k, page, vma)
    set_pte_at(pte, PteVal(PRESENT, page, write=writable, dirty=True, young=True))
    spin_unlock(pte.lock)
    return VM_FAULT_WRITE


def unmap_page_range(k: Kernel, vma: VmAreaStruct, start: int, end: int) -> list[Page]:
    """Take away every mapping in a range of one vma.

    Source:   mm/memory.c unmap_page_range(), zap_pte_range(), v4.3.
    Context:  takes the ptl once for the range; the page lock is not needed.
    Args:     start, end: page numbers.
    Returns:  the gathered pages: their references are to be dropped once the TLB is flushed.
    Bugs:     BUG: a migration entry whose page is not locked. Reports Bad page map.
    Left out: details (even_cows), swap entries, early flushes.
    """
    mm = vma.vm_mm
    gathered: list[Page] = []
    spin_lock(mm.page_table_lock)
    for address in range(start, end):
        pte = pte_offset(mm, address)
        value = pte.value
        if value.kind == NONE:
            continue
        if value.kind == MIGRATION:
            page = migrate.migration_entry_to_page(value)
            mm.rss[MM_ANONPAGES if isinstance(page.mapping, AnonVma) else MM_FILEPAGES] -= 1
            ptep_get_and_clear(pte)
            continue
        value = ptep_get_and_clear(pte)
        mapped = value.page
        if mapped is None:
            continue
        if isinstance(mapped.mapping, AnonVma):
            mm.rss[MM_ANONPAGES] -= 1
        else:
            if value.dirty:
                page_writeback.set_page_dirty(k, mapped)
            if value.young:
                swap.mark_page_accessed(mapped)
            mm.rss[MM_FILEPAGES] -= 1
        rmap.page_remove_rmap(k, mapped)
        if mapped._mapcount < 0:
            k.machine.report(
                "bad-page-map",
                f"BUG: Bad page map in process {mm.name} pfn:{mapped.pfn:05x}",
                "mm/memory.py:unmap_page_range",
                mapped,
            )
        gathered.append(mapped)
    spin_unlock(mm.page_table_lock)
    return gathered


def tlb_finish_mmu(k: Kernel, gathered: list[Page]) -> None:
    """Release the pages that an unmapping gathered.

    Source:   mm/memory.c tlb_finish_mmu(), mm/swap_state.c free_pages_and_swap_cache(), v4.3.
    """
    if gathered:
        swap.lru_add_drain(k)
        swap.release_pages(k, gathered)


def vm_page_prot_writes(vma_flags: int, mapping: AddressSpace | None) -> bool:
    """Does vm_page_prot let a read fault install a writable pte? Only shared tmpfs mappings do:
    disk files want to be told of the first write.

    Source:   mm/mmap.c vma_wants_writenotify(), v4.3.
    """
    return (
        mapping is not None
        and mapping.shmem
        and vma_flags & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE
    )
