"""mm/mprotect.c: changing what a mapping allows."""

from __future__ import annotations

from kstate.flags import ENOMEM, VM_LOCKED, VM_READ, VM_SHARED, VM_SOFTDIRTY, VM_WRITE
from kstate.machine import down_write, spin_lock, spin_unlock, up_write
from kstate.mm import gup, memory, mmap
from kstate.patches import CC_SPLIT_STORE, FIX_MPROTECT_SOFT_DIRTY
from kstate.structs import (
    MIGRATION,
    PRESENT,
    Kernel,
    MmStruct,
    VmAreaStruct,
    pte_with,
    ptep_get_and_clear,
    set_pte_at,
)


def change_protection(
    k: Kernel, vma: VmAreaStruct, start: int, end: int, dirty_accountable: bool
) -> None:
    """Give every pte of a range the vma's protection.

    Source:   mm/mprotect.c change_pte_range(), v4.3.  Patches: fix:mprotect-soft-dirty.
    Context:  mmap_sem held for write; takes the ptl. Each pte is empty for a moment.
    Left out: NUMA hinting.
    """
    mm = vma.vm_mm
    spin_lock(mm.page_table_lock)
    for address in range(start, end):
        pte = memory.pte_offset(mm, address)
        old = pte.value
        if old.kind == PRESENT:
            value = pte_with(ptep_get_and_clear(pte), write=vma.prot_write)
            if dirty_accountable and value.dirty:
                # A write fault would have nothing to tell that is not known.
                if FIX_MPROTECT_SOFT_DIRTY in k.patches:
                    told = value.soft_dirty or vma.vm_flags & VM_SOFTDIRTY
                else:
                    told = value.soft_dirty or not vma.vm_flags & VM_SOFTDIRTY
                if told:
                    value = pte_with(value, write=True)
            set_pte_at(pte, value)
        elif old.kind == MIGRATION and old.write:
            set_pte_at(pte, pte_with(old, write=False))
    spin_unlock(mm.page_table_lock)


def mprotect_fixup(
    k: Kernel, vma: VmAreaStruct, start: int, end: int, newflags: int
) -> VmAreaStruct:
    """Give [start, end) of one vma new flags.

    Source:   mm/mprotect.c mprotect_fixup(), v4.3.            Patches: cc:split-store.
    Context:  mmap_sem held for write.
    Returns:  the vma that now covers the range.
    Left out: huge mappings, which stay as they are.
    """
    oldflags = vma.vm_flags
    if newflags == oldflags or vma.hugetlb:
        return vma
    merged = mmap.vma_merge(k, vma, start, end, newflags)
    if merged is not None:
        vma = merged
    else:
        if start != vma.vm_start:
            mmap.split_vma(k, vma, start, new_below=True)
        if end != vma.vm_end:
            mmap.split_vma(k, vma, end, new_below=False)
    if CC_SPLIT_STORE in k.patches:
        vma.vm_flags = ~0  # all ones on the way, as a compiler may store
    vma.vm_flags = newflags
    wants_writenotify = memory.vma_wants_writenotify(vma)
    memory.vma_set_page_prot(vma)
    change_protection(k, vma, start, end, wants_writenotify)
    if oldflags & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and newflags & VM_WRITE:
        # Private and locked: break COW now, so that no access has to wait for it later.
        gup.populate_vma_page_range(k, vma, start, end, may_drop_mmap_sem=False)
    return vma


def sys_mprotect(k: Kernel, mm: MmStruct, start: int, end: int, write: bool) -> int:
    """mprotect(2), to read and write or to read only.

    Source:   mm/mprotect.c SYSCALL mprotect(), v4.3.
    Context:  process context.
    Args:     start, end: page numbers.        Returns: 0, or -ENOMEM: part is not mapped.
    Left out: VM_MAY* (everything here may be written), other protections.
    """
    down_write(mm.mmap_sem)
    vma = mmap.find_vma(mm, start)
    if vma is None or vma.vm_start > start:
        up_write(mm.mmap_sem)
        return ENOMEM
    at = start
    while True:
        flags = vma.vm_flags & ~(VM_READ | VM_WRITE) | VM_READ
        if write:
            flags |= VM_WRITE
        vma = mprotect_fixup(k, vma, at, min(vma.vm_end, end), flags)
        at = vma.vm_end
        if at >= end:
            up_write(mm.mmap_sem)
            return 0
        following = mmap.find_vma(mm, at)
        if following is None or following.vm_start != at:
            up_write(mm.mmap_sem)
            return ENOMEM
        vma = following
