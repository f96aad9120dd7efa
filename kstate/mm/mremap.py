"""mm/mremap.c: moving a mapping to another address."""

from __future__ import annotations

from kstate.flags import EFAULT, EINVAL, VM_LOCKED
from kstate.machine import down_write, spin_lock, spin_unlock, up_write
from kstate.mm import ksm, memory, mmap, rmap
from kstate.structs import (
    NONE,
    Kernel,
    MmStruct,
    VmAreaStruct,
    pte_with,
    ptep_get_and_clear,
    set_pte_at,
)


def sys_mremap(k: Kernel, mm: MmStruct, old: int, new: int, pages: int) -> int:
    """mremap(MREMAP_MAYMOVE | MREMAP_FIXED) of the same length.

    Source:   mm/mremap.c SYSCALL mremap(), mremap_to(), vma_to_resize(), v4.3.
    Context:  process context; mmap_sem held for write.
    Args:     old, new: page numbers.
    Returns:  0; -EINVAL: the two overlap, or huge pages of a pool; -EFAULT: the old range is not
              within one vma; -ENOMEM: no memory to take KSM pages apart.
    Left out: growing and shrinking.
    """
    if old < new + pages and new < old + pages:
        return EINVAL
    down_write(mm.mmap_sem)
    mmap.do_munmap(k, mm, new, new + pages)
    vma = mmap.find_vma(mm, old)
    if vma is None or vma.vm_start > old:
        ret = EFAULT
    elif vma.hugetlb:
        ret = EINVAL
    elif old + pages > vma.vm_end:
        ret = EFAULT
    else:
        ret = move_vma(k, vma, old, new, pages)
    up_write(mm.mmap_sem)
    return ret


def move_vma(k: Kernel, vma: VmAreaStruct, old: int, new: int, pages: int) -> int:
    """Make a copy of a vma, move the ptes to it, unmap the old one.

    Source:   mm/mremap.c move_vma(); mm/mmap.c copy_vma(), v4.3.
    Context:  mmap_sem held for write.        Returns: 0 or -ENOMEM.
    Left out: merging of the copy with a neighbour, which is when rmap locks are needed to move
              ptes: here the copy always comes after the original in every walk.
    """
    mm = vma.vm_mm
    vm_flags = vma.vm_flags
    # Unmerged, but still to be merged: the flags stay as they are.
    err, _ = ksm.ksm_madvise(k, vma, old, old + pages, False, vm_flags)
    if err:
        return err
    pgoff = memory.linear_page_index(vma, old)
    if vma.vm_file is None and vma.anon_vma is None:
        pgoff = new
    copy = VmAreaStruct(mm, new, new + pages, vm_flags, vma.vm_file, pgoff)
    copy.prot_write = vma.prot_write
    copy.anon_vma = vma.anon_vma
    rmap.anon_vma_clone(copy, vma)
    mmap.vma_link(mm, copy)
    move_ptes(mm, old, new, pages)
    if vm_flags & VM_LOCKED:
        mm.locked_vm += pages
    mmap.do_munmap(k, mm, old, old + pages)
    return 0


def move_ptes(mm: MmStruct, old: int, new: int, pages: int) -> None:
    """Move ptes as they are, marked soft-dirty.

    Source:   mm/mremap.c move_ptes(), move_page_tables(), v4.3.
    Context:  takes the ptl, which is that of both ranges here. Neither rmap lock is taken.
    """
    spin_lock(mm.page_table_lock)
    for offset in range(pages):
        pte, target = memory.pte_offset(mm, old + offset), memory.pte_offset(mm, new + offset)
        if pte.has_table:
            target.has_table = True
        if pte.value.kind == NONE:
            continue
        value = ptep_get_and_clear(pte)
        set_pte_at(target, pte_with(value, soft_dirty=True))
    spin_unlock(mm.page_table_lock)
