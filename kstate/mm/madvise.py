"""mm/madvise.c: MADV_DONTNEED, MADV_MERGEABLE, MADV_UNMERGEABLE."""

from __future__ import annotations

from kstate.flags import EINVAL, ENOMEM, VM_LOCKED
from kstate.machine import down_read, down_write, up_read, up_write
from kstate.mm import ksm, memory, mmap
from kstate.structs import Kernel, MmStruct


def madvise_dontneed(k: Kernel, mm: MmStruct, start: int, end: int) -> int:
    """madvise(MADV_DONTNEED): unmap the pages, keep the mapping.

    Source:   mm/madvise.c SYSCALL madvise(), madvise_dontneed(), v4.3.
    Context:  process context; mmap_sem held for read.
    Args:     start, end: page numbers.
    Returns:  0; -EINVAL: a vma is VM_LOCKED; -ENOMEM: part is not mapped (the rest is done).
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
        if vma.vm_flags & VM_LOCKED:
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
    Returns:  0; -ENOMEM: part is not mapped (the rest is done), or no memory.
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
        error, newflags = ksm.ksm_madvise(k, vma, at, upto, on)
        if error:
            ret = error
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
