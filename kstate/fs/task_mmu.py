"""fs/proc/task_mmu.c: clear_refs."""

from __future__ import annotations

from kstate.flags import VM_SOFTDIRTY
from kstate.machine import down_read, down_write, downgrade_write, spin_lock, spin_unlock, up_read
from kstate.mm import memory
from kstate.patches import FIX_CLEAR_REFS_PTE, FIX_CLEAR_REFS_WRITE_ENTRY
from kstate.structs import (
    MIGRATION,
    NONE,
    PRESENT,
    Kernel,
    MmStruct,
    Pte,
    PteVal,
    pte_with,
    ptep_get_and_clear,
    set_pte_at,
)


def clear_refs_write(k: Kernel, mm: MmStruct) -> int:
    """4 written to /proc/PID/clear_refs: from here on every write is to be noticed.

    Source:   fs/proc/task_mmu.c clear_refs_write(), clear_refs_pte_range(), v4.3.
    Context:  mmap_sem held for read; for write while vmas lose VM_SOFTDIRTY.
    Returns:  0.
    """
    down_read(mm.mmap_sem)
    for vma in mm.vmas:
        if not vma.vm_flags & VM_SOFTDIRTY:
            continue
        up_read(mm.mmap_sem)
        down_write(mm.mmap_sem)
        for each in mm.vmas:
            each.vm_flags &= ~VM_SOFTDIRTY
            memory.vma_set_page_prot(each)
        downgrade_write(mm.mmap_sem)
        break
    for vma in mm.vmas:
        if vma.hugetlb:
            continue  # its ptes are not walked
        spin_lock(mm.page_table_lock)
        for address in range(vma.vm_start, vma.vm_end):
            clear_soft_dirty(k, memory.pte_offset(mm, address))
        spin_unlock(mm.page_table_lock)
    up_read(mm.mmap_sem)
    return 0


def clear_soft_dirty(k: Kernel, pte: Pte) -> None:
    """Clear one pte's soft-dirty bit, and write-protect it so that the next write faults.

    Source:   fs/proc/task_mmu.c clear_soft_dirty(), v4.3.
                                       Patches: fix:clear-refs-pte, fix:clear-refs-write-entry.
    Context:  ptl held. What the MMU does between load and store of the pte is lost, unless the pte
              is empty meanwhile (fix:clear-refs-pte).
    """
    value = pte.value
    if value.kind == NONE:
        if FIX_CLEAR_REFS_PTE not in k.patches:
            set_pte_at(pte, value)
        return
    if value.kind == PRESENT:
        if FIX_CLEAR_REFS_PTE in k.patches:
            value = ptep_get_and_clear(pte)
        set_pte_at(pte, pte_with(value, write=False, soft_dirty=False))
        return
    changed: PteVal = pte_with(value, soft_dirty=False)
    if FIX_CLEAR_REFS_WRITE_ENTRY in k.patches:
        if value.kind == MIGRATION:
            changed = pte_with(changed, write=False)
    set_pte_at(pte, changed)
