"""mm/shmem.c: tmpfs: files that live in the page cache and in swap."""

from __future__ import annotations

from kstate.flags import (
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    NR_FILE_PAGES,
    NR_SHMEM,
    VM_FAULT_LOCKED,
    VM_FAULT_MAJOR,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    PG_locked,
    PG_swapbacked,
    PG_writeback,
)
from kstate.machine import mutex_lock, mutex_unlock, spin_lock_irq, spin_unlock_irq
from kstate.mm import (
    filemap,
    memcontrol,
    memory,
    page_alloc,
    page_io,
    page_writeback,
    swap,
    swap_state,
    swapfile,
    truncate,
)
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageDirty,
    ClearPageSwapCache,
    PageSwapCache,
    SetPageReferenced,
    SetPageSwapBacked,
    SetPageSwapCache,
    SetPageUptodate,
    get_page,
    lock_page,
    page_mapped,
    peek,
    put_page_testzero,
    set_page_locked,
    trylock_page,
    unlock_page,
    wait_on_page_writeback,
)
from kstate.structs import (
    AddressSpace,
    Kernel,
    Page,
    VmAreaStruct,
    radix_tree_lookup,
    radix_tree_store,
)


def shmem_add_to_page_cache(
    mapping: AddressSpace, page: Page, index: int, expected: int | None
) -> bool:
    """Insert a locked page where there is nothing, or where its own swap slot stands.

    Source:   mm/shmem.c shmem_add_to_page_cache(), v4.3.
    Context:  page locked; takes tree_lock; the cache holds a reference of its own.
    Bugs:     VM_BUG: not locked, not swap-backed.
    Returns:  False where something else is there: the page is as it was.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-shmem-add-unlocked", "!PageLocked(page)")
    VM_BUG_ON_PAGE(
        not peek(page, PG_swapbacked), "vm-bug-shmem-add-backed", "!PageSwapBacked(page)"
    )
    get_page(page)
    page.mapping = mapping
    page.index = index
    spin_lock_irq(mapping.tree_lock)
    if radix_tree_lookup(mapping, index) != expected:
        page.mapping = None
        spin_unlock_irq(mapping.tree_lock)
        _put_extra(page)
        return False
    radix_tree_store(mapping, index, page)
    page.zone.stat[NR_FILE_PAGES] += 1
    page.zone.stat[NR_SHMEM] += 1
    spin_unlock_irq(mapping.tree_lock)
    return True


def shmem_delete_from_page_cache(k: Kernel, page: Page, slot: int) -> None:
    """A swap slot takes a page's place in its file.

    Source:   mm/shmem.c shmem_delete_from_page_cache(), v4.3.
    Context:  page locked; takes tree_lock.    Bugs: BUG: the page was not there.
    """
    mapping = page.mapping
    assert isinstance(mapping, AddressSpace)
    spin_lock_irq(mapping.tree_lock)
    index = page.index
    there = radix_tree_lookup(mapping, index) is page
    if there:
        radix_tree_store(mapping, index, slot)
    page.mapping = None
    page.zone.stat[NR_FILE_PAGES] -= 1
    page.zone.stat[NR_SHMEM] -= 1
    spin_unlock_irq(mapping.tree_lock)
    swap.put_page(k, page)
    BUG_ON(not there, "bug-shmem-delete", "error")


def shmem_free_swap(k: Kernel, mapping: AddressSpace, index: int, slot: int) -> int:
    """Take a swap slot out of a file. Source: mm/shmem.c shmem_free_swap(), v4.3.

    Returns: 0, or -ENOENT: something else is there now.
    """
    spin_lock_irq(mapping.tree_lock)
    there = radix_tree_lookup(mapping, index) == slot
    if there:
        radix_tree_store(mapping, index, None)
    spin_unlock_irq(mapping.tree_lock)
    if not there:
        return ENOENT
    swapfile.free_swap_and_cache(k, slot)
    return 0


def shmem_setsize(k: Kernel, mapping: AddressSpace, newsize: int) -> None:
    """ftruncate(2) of a tmpfs file.

    Source:   mm/shmem.c shmem_setattr(), v4.3.
    Context:  takes i_mutex.                   Args: newsize: pages.
    """
    mutex_lock(mapping.i_mutex)
    oldsize = mapping.i_size
    if newsize != oldsize:
        mapping.i_size = newsize
    if newsize <= oldsize:
        memory.unmap_mapping_range(k, mapping, newsize, None, even_cows=True)
        shmem_undo_range(k, mapping, newsize, None)
        # Once more for private pages that were copied meanwhile.
        memory.unmap_mapping_range(k, mapping, newsize, None, even_cows=True)
    mutex_unlock(mapping.i_mutex)


def shmem_fallocate_punch(k: Kernel, mapping: AddressSpace, start: int, end: int) -> int:
    """fallocate(FALLOC_FL_PUNCH_HOLE).

    Source:   mm/shmem.c shmem_fallocate(), v4.3.
    Context:  takes i_mutex.                   Args: start, end: page offsets. Returns: 0.
    Left out: faults are not made to wait for the punch.
    """
    mutex_lock(mapping.i_mutex)
    memory.unmap_mapping_range(k, mapping, start, end, even_cows=False)
    shmem_undo_range(k, mapping, start, end)
    mutex_unlock(mapping.i_mutex)
    return 0


def shmem_undo_range(k: Kernel, mapping: AddressSpace, start: int, end: int | None) -> None:
    """Drop pages and swap slots of a range: first what can be had at once, then the rest.

    Source:   mm/shmem.c shmem_undo_range(), v4.3.
    Context:  sleeps.                          Args: end: None: to the end of the file.
    Bugs:     VM_BUG: under writeback.
    Left out: partial pages, undoing of fallocate.
    """
    index = start
    while found := _entries(k, mapping, index, end):
        for index, entry in found:
            if end is not None and index >= end:
                break
            if isinstance(entry, int):
                shmem_free_swap(k, mapping, index, entry)
            elif trylock_page(entry):
                if entry.mapping is mapping:
                    _check_writeback(entry)
                    truncate.truncate_inode_page(k, mapping, entry)
                unlock_page(entry)
        swap.pagevec_release(k, found)
        index += 1
    index = start
    while (found := _entries(k, mapping, index, end)) or (end is None and index != start):
        if not found:
            index = start  # once more, to make sure that all are gone
            continue
        for index, entry in found:
            if end is not None and index >= end:
                break
            if not _undo(k, mapping, index, entry):
                index -= 1  # what is there now is to go too
                break
        swap.pagevec_release(k, found)
        index += 1


def _entries(
    k: Kernel, mapping: AddressSpace, start: int, end: int | None
) -> list[tuple[int, Page | int]]:
    """As many as the range has pages left; some may lie beyond it."""
    if end is None:
        return filemap.find_get_entries(k, mapping, start)
    return filemap.find_get_entries(k, mapping, start, end - start) if start < end else []


def _undo(k: Kernel, mapping: AddressSpace, index: int, entry: Page | int) -> bool:
    """Drop what is at `index`. False where a page has gone to swap meanwhile, or come back."""
    if isinstance(entry, int):
        return shmem_free_swap(k, mapping, index, entry) == 0
    lock_page(entry)
    ours = entry.mapping is mapping
    if ours:
        _check_writeback(entry)
        truncate.truncate_inode_page(k, mapping, entry)
    unlock_page(entry)
    return ours


def _check_writeback(page: Page) -> None:
    VM_BUG_ON_PAGE(peek(page, PG_writeback) != 0, "vm-bug-shmem-undo-range", "PageWriteback(page)")


def _put_extra(page: Page) -> None:
    """Drop a reference that cannot be the last."""
    put_page_testzero(page)


def shmem_writepage(k: Kernel, mapping: AddressSpace, page: Page) -> bool:
    """Reclaim writes a tmpfs page: it moves to the swap cache and out to its slot.

    Source:   mm/shmem.c shmem_writepage(), v4.3.
    Context:  page locked, unmapped, clean; unlocked on success.
    Returns:  False (AOP_WRITEPAGE_ACTIVATE) where swap is full: dirty again, and still locked.
    Bugs:     BUG: not locked; mapped.
    Left out: shmem_swaplist, fallocated pages.
    """
    BUG_ON(not peek(page, PG_locked), "bug-shmem-writepage-unlocked", "!PageLocked(page)")
    slot = swapfile.get_swap_page(k)
    if not slot:
        page_writeback.set_page_dirty(k, page)
        return False
    swap_state.add_to_swap_cache(k, page, slot)
    swapfile.swap_shmem_alloc(k, slot)
    shmem_delete_from_page_cache(k, page, slot)
    BUG_ON(page_mapped(page), "bug-shmem-writepage-mapped", "page_mapped(page)")
    page_io.swap_writepage(k, page)
    return True


def shmem_getpage(
    k: Kernel, mapping: AddressSpace, index: int, *, write: bool = False
) -> tuple[int, bool, Page | None]:
    """Find, read back from swap, or make a page; it comes back locked.

    Source:   mm/shmem.c shmem_getpage_gfp(), v4.3.
    Context:  sleeps.
    Args:     write: SGP_WRITE: beyond the end of the file too, and a new page is yet to be filled;
              else SGP_CACHE.
    Returns:  (0 or an errno, was it read from swap, page).
    Left out: accounting of blocks.
    """
    major = False
    while True:
        entry = filemap.find_lock_entry(k, mapping, index)
        if not write and index >= mapping.i_size:
            if isinstance(entry, Page):
                unlock_page(entry)
                swap.put_page(k, entry)
            return EINVAL, major, None
        if isinstance(entry, Page):
            if write:
                swap.mark_page_accessed(k, entry)
            return 0, major, entry
        if entry is None:
            error, page = _make_page(k, mapping, index, write)
        else:
            error, read, page = _swap_in(k, mapping, index, entry, write)
            major |= read
        if error == EEXIST:
            continue
        if page is not None and not write and index >= mapping.i_size:  # truncated meanwhile
            if entry is None:
                ClearPageDirty(page)
                filemap.delete_from_page_cache(k, page)
            unlock_page(page)
            swap.put_page(k, page)
            return EINVAL, major, None
        return error, major, page


def _make_page(
    k: Kernel, mapping: AddressSpace, index: int, write: bool
) -> tuple[int, Page | None]:
    page = page_alloc.alloc_page_upto(k, mapping.gfp_node)
    if page is None:
        return ENOMEM, None
    SetPageSwapBacked(page)
    set_page_locked(page)
    if write:
        SetPageReferenced(page)
    error, memcg = memcontrol.mem_cgroup_try_charge(k, page, memcontrol.current_mm(k))
    if not error and not shmem_add_to_page_cache(mapping, page, index, None):
        memcontrol.mem_cgroup_cancel_charge(memcg)
        error = EEXIST
    if error:
        unlock_page(page)
        swap.put_page(k, page)
        return error, None
    memcontrol.mem_cgroup_commit_charge(page, memcg)
    swap.lru_cache_add_inactive(k, page)
    if not write:
        SetPageUptodate(page)
    return 0, page


def _swap_in(
    k: Kernel, mapping: AddressSpace, index: int, slot: int, write: bool
) -> tuple[int, bool, Page | None]:
    """Move a page from the swap cache, read into it if need be, back to its file."""
    read = False
    page = swap_state.lookup_swap_cache(k, slot)
    if page is None:
        read = True
        page = swap_state.swapin_readahead(k, slot, mapping.gfp_node)
        if page is None:
            gone = radix_tree_lookup(mapping, index) != slot
            return EEXIST if gone else ENOMEM, read, None
    lock_page(page)
    if not PageSwapCache(page) or page.private != slot or radix_tree_lookup(mapping, index) != slot:
        unlock_page(page)
        swap.put_page(k, page)
        return EEXIST, read, None
    wait_on_page_writeback(page)
    limit = mapping.gfp_node
    if 0 <= limit < page.zone.node:
        new = shmem_replace_page(k, page, limit)
        if new is None:
            return _failed(k, mapping, index, slot, page, ENOMEM), read, None
        page = new
    error, memcg = memcontrol.mem_cgroup_try_charge(k, page, memcontrol.current_mm(k))
    if not error and not shmem_add_to_page_cache(mapping, page, index, slot):
        memcontrol.mem_cgroup_cancel_charge(memcg)
        swap_state.delete_from_swap_cache(k, page)
        error = ENOENT
    if error:
        return _failed(k, mapping, index, slot, page, error), read, None
    memcontrol.mem_cgroup_commit_charge(page, memcg, lrucare=True)
    if write:
        swap.mark_page_accessed(k, page)
    swap_state.delete_from_swap_cache(k, page)
    page_writeback.set_page_dirty(k, page)
    swapfile.swap_free(k, slot)
    return 0, read, page


def _failed(k: Kernel, mapping: AddressSpace, index: int, slot: int, page: Page, error: int) -> int:
    """Give the page back. -EEXIST, try again, where the file has let go of the slot meanwhile."""
    if radix_tree_lookup(mapping, index) != slot:
        error = EEXIST
    unlock_page(page)
    swap.put_page(k, page)
    return error


def shmem_replace_page(k: Kernel, oldpage: Page, limit: int) -> Page | None:
    """The page that was read from swap is where this file may not have pages: take another.

    Source:   mm/shmem.c shmem_replace_page(), shmem_should_replace_page(), v4.3.
    Context:  page locked, in the swap cache; takes the swap space's tree_lock. On success the old
              page is unlocked, without the cache's and the caller's reference; it may be on an LRU
              list, and another may hold one.
    Args:     limit: the highest node allowed.
    Returns:  the new page, locked, with a reference; None: no memory, nothing was changed, or the
              old page has left the swap cache (which is not possible).
    """
    newpage = page_alloc.alloc_page_upto(k, limit)
    if newpage is None:
        return None
    slot = oldpage.private
    space = k.swap.space
    get_page(newpage)
    memory.copy_user_highpage(k, newpage, oldpage)
    set_page_locked(newpage)
    SetPageUptodate(newpage)
    SetPageSwapBacked(newpage)
    newpage.private = slot
    SetPageSwapCache(newpage)
    spin_lock_irq(space.tree_lock)
    there = radix_tree_lookup(space, slot) is oldpage
    if there:
        radix_tree_store(space, slot, newpage)
        newpage.zone.stat[NR_FILE_PAGES] += 1
        oldpage.zone.stat[NR_FILE_PAGES] -= 1
    spin_unlock_irq(space.tree_lock)
    if there:
        memcontrol.mem_cgroup_replace_page(k, oldpage, newpage)
        swap.lru_cache_add_inactive(k, newpage)
    left = oldpage if there else newpage
    ClearPageSwapCache(left)
    left.private = 0
    unlock_page(left)
    swap.put_page(k, left)
    swap.put_page(k, left)
    return newpage if there else None


def shmem_fault(k: Kernel, vma: VmAreaStruct, pgoff: int, flags: int) -> tuple[int, Page | None]:
    """Find or make the page for a fault; it comes back locked.

    Source:   mm/shmem.c shmem_fault(), v4.3.
    Context:  mmap_sem held for read and kept: tmpfs waits for the page lock under it.
    Returns:  (VM_FAULT_* bits, page).
    Left out: waiting for a hole that is being punched.
    """
    mapping = vma.vm_file
    assert mapping is not None
    error, major, page = shmem_getpage(k, mapping, pgoff)
    if page is None:
        return (VM_FAULT_OOM if error == ENOMEM else VM_FAULT_SIGBUS), None
    return VM_FAULT_LOCKED | (VM_FAULT_MAJOR if major else 0), page
