"""mm/madvise.c: MADV_DONTNEED, MADV_WILLNEED, MADV_MERGEABLE, MADV_UNMERGEABLE."""

from __future__ import annotations

from kstate.flags import EAGAIN, EINVAL, ENOMEM, VM_LOCKED
from kstate.machine import down_read, down_write, spin_lock, spin_unlock, up_read, up_write
from kstate.mm import filemap, ksm, memory, mmap, swap, swap_state
from kstate.structs import SWAP, Kernel, MmStruct, Page, VmAreaStruct


def madvise_dontneed(k: Kernel, mm: MmStruct, start: int, end: int) -> int:
    """madvise(MADV_DONTNEED): unmap the pages, keep the mapping.

    Source:   mm/madvise.c SYSCALL madvise(), madvise_dontneed(), v4.3.
    Context:  process context; mmap_sem held for read.
    Args:     start, end: page numbers.
    Returns:  0; -EINVAL: a vma is VM_LOCKED or huge; -ENOMEM: part is not mapped (the rest is
              done).
    """
    unmapped_error = 0
    down_read(mm.mmap_sem)
    at = start
    vma = mmap.find_vma(mm, at)
    while True:
        if vma is None:
            up_read(mm.mmap_sem)
            return ENOMEM
        if at < vma.vm_start:
            unmapped_error = ENOMEM
            at = vma.vm_start
            if at >= end:
                break
        upto = min(vma.vm_end, end)
        if vma.hugetlb or vma.vm_flags & VM_LOCKED:
            up_read(mm.mmap_sem)
            return EINVAL
        memory.zap_page_range(k, vma, at, upto)
        at = upto
        if at >= end:
            break
        vma = mmap.find_vma(mm, at)
    up_read(mm.mmap_sem)
    return unmapped_error


def madvise_mergeable(k: Kernel, mm: MmStruct, start: int, end: int, on: bool) -> int:
    """madvise(MADV_MERGEABLE) or, not `on`, madvise(MADV_UNMERGEABLE).

    Source:   mm/madvise.c SYSCALL madvise(), madvise_behavior(), v4.3.
    Context:  process context; mmap_sem held for write.
    Args:     start, end: page numbers.
    Returns:  0; -ENOMEM: part is not mapped (the rest is done); -EAGAIN: no memory.
    """
    ret = 0
    down_write(mm.mmap_sem)
    at = start
    while at < end:
        vma = mmap.find_vma(mm, at)
        if vma is None or vma.vm_start >= end:
            ret = ENOMEM
            break
        if at < vma.vm_start:
            ret = ENOMEM
            at = vma.vm_start
        upto = min(vma.vm_end, end)
        error, newflags = ksm.ksm_madvise(k, vma, at, upto, on, vma.vm_flags)
        if error:
            ret = EAGAIN
            break
        if newflags != vma.vm_flags:
            merged = mmap.vma_merge(k, vma, at, upto, newflags)
            if merged is not None:
                vma = merged
            else:
                if at != vma.vm_start:
                    mmap.split_vma(k, vma, at, new_below=True)
                if upto != vma.vm_end:
                    mmap.split_vma(k, vma, upto, new_below=False)
            vma.vm_flags = newflags
        at = upto
    up_write(mm.mmap_sem)
    return ret


def madvise_willneed(k: Kernel, mm: MmStruct, start: int, end: int) -> int:
    """madvise(MADV_WILLNEED): read what is in swap, of anonymous memory and of tmpfs.

    Source:   mm/madvise.c SYSCALL madvise(), madvise_willneed(), force_swapin_readahead(),
              force_shm_swapin_readahead(), v4.3.
    Context:  process context; mmap_sem held for read. A page may be put on any node, whatever its
              file wants; nobody is charged for it before it is mapped.
    Args:     start, end: page numbers.
    Returns:  0; -ENOMEM: part is not mapped (the rest is done).
    Left out: readahead of other files.
    """
    down_read(mm.mmap_sem)
    done = start
    for vma in mm.vmas:
        first, last = max(start, vma.vm_start), min(end, vma.vm_end)
        if first >= last:
            continue
        done += last - first
        for address in range(first, last):
            slot = _swap_slot(k, vma, address)
            page = swap_state.read_swap_cache_async(k, slot) if slot else None
            if page is not None:
                swap.put_page(k, page)
        if not vma.hugetlb and (vma.vm_file is None or vma.vm_file.shmem):
            swap.lru_add_drain(k)
    up_read(mm.mmap_sem)
    return 0 if done == end else ENOMEM


def _swap_slot(k: Kernel, vma: VmAreaStruct, address: int) -> int:
    """The swap slot that stands for a page of a process or of a tmpfs file, or 0."""
    if vma.vm_file is None:
        pte = memory.pte_offset(vma.vm_mm, address)
        spin_lock(pte.lock)
        value = pte.value
        spin_unlock(pte.lock)
        return value.swap if value.kind == SWAP else 0
    if not vma.vm_file.shmem:
        return 0
    pgoff = memory.linear_page_index(vma, address)
    entry = filemap.find_get_entry(k, vma.vm_file, pgoff)
    if isinstance(entry, Page):
        swap.put_page(k, entry)
        return 0
    return entry or 0
