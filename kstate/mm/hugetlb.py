"""mm/hugetlb.c: huge pages of their own pool, mapped from hugetlbfs or privately.

One huge page is one Page, flagged PG_head; in a huge mapping a page number stands for a huge page.
It is on no LRU list, in no zone counter and no rss counter; its vma is never VM_LOCKED.
"""

from __future__ import annotations

from kstate.flags import (
    FAULT_FLAG_WRITE,
    FOLL_GET,
    FOLL_WRITE,
    VM_FAULT_SIGBUS,
    VM_SHARED,
    VM_WRITE,
    PG_head,
)
from kstate.machine import (
    down_write,
    look,
    mutex_lock,
    mutex_unlock,
    spin_lock,
    spin_unlock,
    up_write,
)
from kstate.mm import filemap, memory, migrate, page_writeback, rmap, swap
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageHugeActive,
    PageAnon,
    PageHugeActive,
    SetPageHugeActive,
    SetPageUptodate,
    get_page,
    get_page_unless_zero,
    lock_page,
    page_mapcount,
    peek,
    trylock_page,
    unlock_page,
    wait_on_page_locked,
)
from kstate.structs import (
    MIGRATION,
    NONE,
    PRESENT,
    AddressSpace,
    Hstate,
    Kernel,
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
    take_huge_page,
)


def hstate(k: Kernel) -> Hstate:
    """The machine's huge pages, set aside when they are first asked for. No step.

    Source:   mm/hugetlb.c hugetlb_init(), v4.3.
    """
    if k.hugetlb is None:
        k.hugetlb = Hstate(k)
    return k.hugetlb


def alloc_huge_page_node(k: Kernel, node: int) -> Page | None:
    """A huge page of just this node, or None.

    Source:   mm/hugetlb.c alloc_huge_page_node(), dequeue_huge_page_node(), v4.3.
    Context:  takes hugetlb_lock.              Left out: surplus pages, reservations.
    """
    h = hstate(k)
    spin_lock(h.lock)
    page = take_huge_page(k, h, node)
    spin_unlock(h.lock)
    return page


def alloc_huge_page(k: Kernel) -> Page | None:
    """A huge page of the first node that has one, for a fault.

    Source:   mm/hugetlb.c alloc_huge_page(), dequeue_huge_page_vma(), v4.3.
    Context:  takes hugetlb_lock.              Left out: as alloc_huge_page_node.
    """
    h = hstate(k)
    page = None
    spin_lock(h.lock)
    for node in range(len(k.zones)):
        page = take_huge_page(k, h, node)
        if page is not None:
            break
    spin_unlock(h.lock)
    return page


def free_huge_page(k: Kernel, page: Page) -> None:
    """The last reference is gone: back to the pool, with whatever flags it has.

    Source:   mm/hugetlb.c free_huge_page(), enqueue_huge_page(), v4.3.
    Context:  takes hugetlb_lock.
    Bugs:     BUG: it has references; it is mapped.
    """
    page.mapping = None
    look(page)
    BUG_ON(page._refcount != 0, "bug-free-huge-page-count", "page_count(page)")
    BUG_ON(page._mapcount != 0, "bug-free-huge-page-mapcount", "page_mapcount(page)")
    h = hstate(k)
    spin_lock(h.lock)
    ClearPageHugeActive(page)
    k.machine.note("page-freed", page)
    h.free[page.zone.node].append(page)
    spin_unlock(h.lock)


def isolate_huge_page(k: Kernel, page: Page) -> bool:
    """Take a huge page that is in use for a migration, with a reference.

    Source:   mm/hugetlb.c isolate_huge_page(), v4.3.
    Context:  takes hugetlb_lock; the page may be free.        Bugs: VM_BUG: no huge page.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_head), "vm-bug-isolate-huge-page", "!PageHead(page)")
    h = hstate(k)
    spin_lock(h.lock)
    if not PageHugeActive(page) or not get_page_unless_zero(page):
        spin_unlock(h.lock)
        return False
    ClearPageHugeActive(page)
    spin_unlock(h.lock)
    return True


def putback_active_hugepage(k: Kernel, page: Page) -> None:
    """Undo an isolation, and drop its reference.

    Source:   mm/hugetlb.c putback_active_hugepage(), v4.3.
    Context:  takes hugetlb_lock.              Bugs: VM_BUG: no huge page.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_head), "vm-bug-putback-huge-page", "!PageHead(page)")
    h = hstate(k)
    spin_lock(h.lock)
    SetPageHugeActive(page)
    spin_unlock(h.lock)
    swap.put_page(k, page)


def make_huge_pte(vma: VmAreaStruct, page: Page, writable: bool) -> PteVal:
    """Source: mm/hugetlb.c make_huge_pte(), v4.3."""
    entry = PteVal(PRESENT, page, young=True)
    return pte_mkdirty(pte_with(entry, write=True)) if writable else entry


def hugetlb_fault(k: Kernel, vma: VmAreaStruct, address: int, flags: int) -> int:
    """Resolve one fault in a huge mapping.

    Source:   mm/hugetlb.c hugetlb_fault(), v4.3.
    Context:  mmap_sem held for read; takes the fault mutex, then the ptl.
    Returns:  VM_FAULT_* bits, as handle_mm_fault.
    Left out: hwpoison, reservations; one mutex for all faults.
    """
    pte = memory.pte_offset(vma.vm_mm, address)
    if pte.value.kind == MIGRATION:
        return migrate.migration_entry_wait(k, pte)
    mutex = hstate(k).fault_mutex
    mutex_lock(mutex)
    entry = pte.value
    if entry.kind == NONE:
        ret = hugetlb_no_page(k, vma, address, pte, flags)
        mutex_unlock(mutex)
        return ret
    page = entry.page
    if entry.kind != PRESENT or page is None:  # a migration began: the next fault waits for it
        mutex_unlock(mutex)
        return 0
    ret = 0
    busy = False
    spin_lock(pte.lock)
    if pte_same(pte.value, entry):
        busy = not trylock_page(page)
        if not busy:
            get_page(page)
            if flags & FAULT_FLAG_WRITE and not entry.write:
                ret = hugetlb_cow(k, vma, address, pte, entry)
            elif flags & FAULT_FLAG_WRITE:
                set_pte_at(pte, pte_mkdirty(pte_with(entry, young=True)))
            unlock_page(page)
            swap.put_page(k, page)
    spin_unlock(pte.lock)
    mutex_unlock(mutex)
    if busy:
        wait_on_page_locked(page)
    return ret


def hugetlb_no_page(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, flags: int) -> int:
    """First touch of a huge page.

    Source:   mm/hugetlb.c hugetlb_no_page(), v4.3.
    Context:  the fault mutex held; takes the page lock, then the ptl.
    Returns:  0; VM_FAULT_SIGBUS: no huge page left, or beyond the end of the file.
    Left out: private mappings of a file that has pages; truncation.
    """
    mapping = vma.vm_file
    index = memory.linear_page_index(vma, address)
    page = new_page = None
    while page is None:
        if mapping is not None:
            found = filemap.find_lock_entry(k, mapping, index)
            if isinstance(found, Page):
                page = found
                break
            if index >= mapping.i_size:
                return VM_FAULT_SIGBUS
        new_page = alloc_huge_page(k)
        if new_page is None:
            return VM_FAULT_SIGBUS
        new_page._token = 0  # clear_huge_page(); nobody can see it yet
        SetPageUptodate(new_page)
        if mapping is None:
            lock_page(new_page)
            rmap.anon_vma_prepare(vma)
        elif filemap.add_to_page_cache(k, mapping, new_page, index):
            swap.put_page(k, new_page)
            continue
        page = new_page
    spin_lock(pte.lock)
    if pte.value.kind != NONE:
        spin_unlock(pte.lock)
        unlock_page(page)
        swap.put_page(k, page)
        return 0
    if mapping is None:
        rmap.hugepage_add_new_anon_rmap(page, vma, address)
    else:
        rmap.page_dup_rmap(page)
    vm_flags = vma.vm_flags
    entry = make_huge_pte(vma, page, vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED)
    set_pte_at(pte, entry)
    ret = 0
    if flags & FAULT_FLAG_WRITE and not vm_flags & VM_SHARED:
        ret = hugetlb_cow(k, vma, address, pte, entry)
    if page is new_page:
        SetPageHugeActive(page)
    spin_unlock(pte.lock)
    unlock_page(page)
    return ret


def hugetlb_cow(k: Kernel, vma: VmAreaStruct, address: int, pte: Pte, orig: PteVal) -> int:
    """Write to a private huge page: in place if nobody else maps it, else a copy.

    Source:   mm/hugetlb.c hugetlb_cow(), v4.3.
    Context:  page locked, the fault mutex held; ptl held, dropped in between.
    Returns:  0; VM_FAULT_SIGBUS: no huge page left.
    Left out: taking the page away from children where there is none for the parent.
    """
    old_page = orig.page
    assert old_page is not None
    if page_mapcount(old_page) == 1 and PageAnon(old_page):
        rmap.page_move_anon_rmap(old_page, vma)
        set_pte_at(pte, pte_mkdirty(pte_with(orig, write=True)))
        return 0
    get_page(old_page)
    spin_unlock(pte.lock)
    new_page = alloc_huge_page(k)
    if new_page is None:
        swap.put_page(k, old_page)
        spin_lock(pte.lock)
        return VM_FAULT_SIGBUS
    rmap.anon_vma_prepare(vma)
    memory.copy_user_highpage(k, new_page, old_page)
    SetPageUptodate(new_page)
    unused = new_page
    spin_lock(pte.lock)
    if pte_same(pte.value, orig):
        ptep_get_and_clear(pte)
        set_pte_at(pte, make_huge_pte(vma, new_page, True))
        rmap.page_remove_rmap(k, old_page)
        rmap.hugepage_add_new_anon_rmap(new_page, vma, address)
        SetPageHugeActive(new_page)
        unused = old_page
    spin_unlock(pte.lock)
    swap.put_page(k, unused)
    swap.put_page(k, old_page)
    spin_lock(pte.lock)
    return 0


def follow_huge_pmd(k: Kernel, vma: VmAreaStruct, address: int, flags: int) -> Page | None:
    """The huge page mapped at an address; waits for a migration of it.

    Source:   mm/hugetlb.c follow_huge_pmd(), follow_hugetlb_page(), v4.3.
    Context:  mmap_sem held; takes the ptl.    Args: flags: FOLL_GET, FOLL_WRITE.
    Returns:  None: not present, or not writable with FOLL_WRITE.
    """
    pte = memory.pte_offset(vma.vm_mm, address)
    while True:
        spin_lock(pte.lock)
        value = pte.value
        if value.kind == PRESENT:
            page = None if flags & FOLL_WRITE and not value.write else value.page
            if flags & FOLL_GET and page is not None:
                get_page(page)
            spin_unlock(pte.lock)
            return page
        spin_unlock(pte.lock)
        if value.kind != MIGRATION:
            return None
        if migrate.migration_entry_wait(k, pte):
            migrate.migration_entry_unfrozen(pte)


def copy_hugetlb_page_range(k: Kernel, child: VmAreaStruct, parent: VmAreaStruct) -> None:
    """Copy the huge ptes of one vma at fork.

    Source:   mm/hugetlb.c copy_hugetlb_page_range(), v4.3.
    Context:  both mmap_sems held for write; takes both ptls for each pte, the child's first.
    """
    src, dst = parent.vm_mm, child.vm_mm
    cow = parent.vm_flags & VM_SHARED == 0
    for address in range(parent.vm_start, parent.vm_end):
        pte = memory.pte_offset(src, address)
        spin_lock(dst.page_table_lock)
        spin_lock(src.page_table_lock)
        value = pte.value
        page = value.page
        if value.kind == MIGRATION:
            if value.write and cow:
                value = pte_with(value, write=False)
                set_pte_at(pte, value)
            set_pte_at(memory.pte_offset(dst, address), value)
        elif page is not None:
            if cow:
                value = ptep_set_wrprotect(pte)
            get_page(page)
            rmap.page_dup_rmap(page)
            set_pte_at(memory.pte_offset(dst, address), value)
        spin_unlock(src.page_table_lock)
        spin_unlock(dst.page_table_lock)


def __unmap_hugepage_range(k: Kernel, vma: VmAreaStruct, start: int, end: int) -> list[Page]:
    """Take away every mapping in a range of one huge vma.

    Source:   mm/hugetlb.c __unmap_hugepage_range(), mm/memory.c unmap_single_vma(), v4.3.
    Context:  takes i_mmap_rwsem of a file for write, each ptl.
    Returns:  the gathered pages, as unmap_page_range.
    """
    mapping = vma.vm_file
    gathered: list[Page] = []
    if mapping is not None:
        down_write(mapping.i_mmap_rwsem)
    for address in range(start, end):
        pte = memory.pte_offset(vma.vm_mm, address)
        spin_lock(pte.lock)
        value = pte.value
        if value.kind == MIGRATION:
            ptep_get_and_clear(pte)  # unmapped already
        elif value.kind == PRESENT:
            value = ptep_get_and_clear(pte)
            page = value.page
            assert page is not None
            if value.dirty:
                page_writeback.set_page_dirty(k, page)
            rmap.page_remove_rmap(k, page)
            gathered.append(page)
        spin_unlock(pte.lock)
    if mapping is not None:
        up_write(mapping.i_mmap_rwsem)
    return gathered


def hugetlbfs_migrate_page(k: Kernel, mapping: AddressSpace, newpage: Page, page: Page) -> int:
    """hugetlbfs's own migratepage.

    Source:   fs/hugetlbfs/inode.c hugetlbfs_migrate_page(), v4.3.     Context: both pages locked.
    """
    rc = migrate.migrate_huge_page_move_mapping(k, mapping, newpage, page)
    if rc:
        return rc
    migrate.migrate_page_copy(k, newpage, page)
    return 0
