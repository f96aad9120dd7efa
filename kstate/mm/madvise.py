"""mm/madvise.c: MADV_DONTNEED."""

from __future__ import annotations

from kstate.flags import EINVAL, ENOMEM, VM_LOCKED
from kstate.machine import down_read, up_read
from kstate.mm import memory, mmap
from kstate.structs import Kernel, MmStruct


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
