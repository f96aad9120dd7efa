"""mm/gup.c: finding the page behind an address, and populating a range."""

from __future__ import annotations

from kstate.flags import (
    EFAULT,
    ENOMEM,
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_WRITE,
    FOLL_DUMP,
    FOLL_GET,
    FOLL_MIGRATION,
    FOLL_POPULATE,
    FOLL_TOUCH,
    FOLL_WRITE,
    VM_FAULT_FROZEN,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
    VM_FAULT_WRITE,
    VM_LOCKED,
    VM_SHARED,
    VM_WRITE,
)
from kstate.machine import down_read, spin_lock, spin_unlock, up_read
from kstate.mm import hugetlb, memory, migrate, mlock, mmap, page_writeback, swap
from kstate.mm.debug import VM_BUG_ON
from kstate.pageflags import PageDirty, get_page, trylock_page, unlock_page
from kstate.structs import (
    MIGRATION,
    NONE,
    PRESENT,
    Kernel,
    MmStruct,
    Page,
    VmAreaStruct,
    pte_mkdirty,
    pte_same,
    pte_with,
    set_pte_at,
)


def follow_page_mask(k: Kernel, vma: VmAreaStruct, address: int, flags: int) -> Page | int | None:
    """The page mapped at an address.

    Source:   mm/gup.c follow_page_mask(), follow_page_pte(), no_page_table();
              mm/huge_memory.c follow_trans_huge_pmd(), v4.3.
    Context:  mmap_sem held, or nobody else left to change the vmas; takes the ptl.
    Args:     flags: FOLL_GET takes a reference; FOLL_TOUCH marks it accessed; FOLL_POPULATE
              marks it Mlocked in a VM_LOCKED vma, if its page lock can be had at once;
              FOLL_MIGRATION waits for a migration to end.
    Returns:  None: not present, a migration entry, or not writable with FOLL_WRITE. An errno:
              FOLL_DUMP met the zero page, or nothing at all in an anonymous vma.
    Left out: NUMA hinting. In v4.4 FOLL_MLOCK is a flag of its own;
              populate always passes both.
    """
    if vma.hugetlb:
        return hugetlb.follow_huge_pmd(k, vma, address, flags)
    mm = vma.vm_mm
    pte = memory.pte_offset(mm, address)
    spin_lock(mm.page_table_lock)
    value = pte.value
    page = value.page
    if value.kind != PRESENT or (flags & FOLL_WRITE and not value.write):
        spin_unlock(mm.page_table_lock)
        if value.kind == MIGRATION and flags & FOLL_MIGRATION:
            if migrate.migration_entry_wait(k, pte) & VM_FAULT_FROZEN:
                migrate.migration_entry_unfrozen(pte)
            return follow_page_mask(k, vma, address, flags)
        # Nothing there, nothing to be had from a file either: a core dump need not ask.
        nothing = value.kind == NONE and flags & FOLL_DUMP and vma.vm_file is None
        return EFAULT if nothing else None
    if page is None:
        spin_unlock(mm.page_table_lock)
        return EFAULT if flags & FOLL_DUMP else 0
    if flags & FOLL_GET:
        get_page(page)
    if flags & FOLL_TOUCH and page.nr_pages > 1:
        touched = pte_mkdirty(pte_with(value, young=True))  # dirty means nothing in a pmd
        if not pte_same(value, touched):
            set_pte_at(pte, touched)
    elif flags & FOLL_TOUCH:
        if flags & FOLL_WRITE and not value.dirty and not PageDirty(page):
            page_writeback.set_page_dirty(k, page)
        swap.mark_page_accessed(k, page)
    if flags & FOLL_POPULATE and vma.vm_flags & VM_LOCKED:
        # Where the page lock is taken the page is left unmarked, and nobody is told.
        if page.mapping is not None and trylock_page(page):
            swap.lru_add_drain(k)
            mlock.mlock_vma_page(k, page)
            unlock_page(page)
    spin_unlock(mm.page_table_lock)
    return page


def populate_vma_page_range(
    k: Kernel, vma: VmAreaStruct, start: int, end: int, *, may_drop_mmap_sem: bool = True
) -> tuple[int, bool]:
    """Fault in a range of one vma, marking pages on the way.

    Source:   mm/gup.c populate_vma_page_range(), __get_user_pages(), v4.3.
    Context:  mmap_sem held for read, or for write if it may not be dropped on the way.
    Returns:  (pages done or an errno, is mmap_sem still held).
    Bugs:     VM_BUG: the range is not the vma's; nobody holds mmap_sem.
    """
    VM_BUG_ON(
        start < vma.vm_start or end > vma.vm_end,
        "vm-bug-populate-range",
        "start < vma->vm_start || end > vma->vm_end",
    )
    mmap_sem = vma.vm_mm.mmap_sem
    VM_BUG_ON(
        mmap_sem.writer is None and not mmap_sem.readers,
        "vm-bug-populate-unlocked",
        "!rwsem_is_locked(&mm->mmap_sem)",
    )
    flags = FOLL_TOUCH | FOLL_POPULATE
    if vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        flags |= FOLL_WRITE
    address = start
    while address < end:
        foll = flags
        while follow_page_mask(k, vma, address, foll) is None:
            fault_flags = FAULT_FLAG_ALLOW_RETRY if may_drop_mmap_sem else 0
            if foll & FOLL_WRITE:
                fault_flags |= FAULT_FLAG_WRITE
            ret = memory.handle_mm_fault(k, vma, address, fault_flags)
            if ret & VM_FAULT_FROZEN:
                migrate.migration_entry_unfrozen(memory.pte_offset(vma.vm_mm, address))
                continue
            if ret & VM_FAULT_OOM:
                return (address - start) or ENOMEM, True
            if ret & (VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV):
                return (address - start) or EFAULT, True
            if ret & VM_FAULT_RETRY:
                return address - start, False
            if ret & VM_FAULT_WRITE and not vma.vm_flags & VM_WRITE:
                foll &= ~FOLL_WRITE  # broken COW of a read-only mapping: reading is enough now
        address += 1
    return address - start, True


def __mm_populate(k: Kernel, mm: MmStruct, start: int, end: int) -> int:
    """Populate a range, vma by vma.

    Source:   mm/gup.c __mm_populate(), v4.3.
    Context:  mmap_sem not held.               Returns: 0 or an errno.
    """
    locked = False
    ret = 0
    nstart = start
    vma: VmAreaStruct | None = None
    while nstart < end:
        if not locked:
            locked = True
            down_read(mm.mmap_sem)
            vma = mmap.find_vma(mm, nstart)
        elif vma is not None and nstart >= vma.vm_end:
            vma = mmap.find_vma(mm, vma.vm_end)
        if vma is None or vma.vm_start >= end:
            break
        nend = min(end, vma.vm_end)
        nstart = max(nstart, vma.vm_start)
        done, locked = populate_vma_page_range(k, vma, nstart, nend)
        if done < 0:
            ret = done
            break
        nstart += done
    if locked:
        up_read(mm.mmap_sem)
    return ret
