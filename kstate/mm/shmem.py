"""mm/shmem.c: faults on tmpfs files."""

from __future__ import annotations

from kstate.flags import VM_FAULT_LOCKED, VM_FAULT_OOM, VM_FAULT_SIGBUS
from kstate.mm import filemap, page_alloc, swap
from kstate.pageflags import SetPageSwapBacked, SetPageUptodate
from kstate.structs import Kernel, Page, VmAreaStruct


def shmem_fault(k: Kernel, vma: VmAreaStruct, pgoff: int, flags: int) -> tuple[int, Page | None]:
    """Find or make the page for a fault; it comes back locked.

    Source:   mm/shmem.c shmem_fault(), shmem_getpage_gfp(), v4.3.
    Context:  mmap_sem held for read and kept: tmpfs waits for the page lock under it.
    Returns:  (VM_FAULT_* bits, page).
    Left out: swapped-out pages, hole punching, accounting of blocks.
    """
    mapping = vma.vm_file
    assert mapping is not None
    if pgoff >= mapping.i_pages:
        return VM_FAULT_SIGBUS, None
    while True:
        page = filemap.find_lock_page(k, mapping, pgoff)
        if page is not None:
            return VM_FAULT_LOCKED, page
        page = page_alloc.alloc_page(k)
        if page is None:
            return VM_FAULT_OOM, None
        SetPageSwapBacked(page)
        if filemap.add_to_page_cache_locked(mapping, page, pgoff):
            swap.lru_cache_add_inactive(k, page)
            SetPageUptodate(page)
            return VM_FAULT_LOCKED, page
        swap.put_page(k, page)
