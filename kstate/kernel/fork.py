"""kernel/fork.c: copying an address space, and giving one up."""

from __future__ import annotations

from kstate.flags import EAGAIN, VM_LOCKED
from kstate.fs import aio
from kstate.machine import down_write, up_write
from kstate.mm import ksm, memory, mmap, rmap
from kstate.structs import Kernel, MmStruct, VmAreaStruct, finish_fork, put_mm_user, take_process


def dup_mmap(k: Kernel, mm: MmStruct, oldmm: MmStruct) -> None:
    """Copy vmas and page tables.

    Source:   kernel/fork.c dup_mmap(), v4.3.
    Context:  takes both mmap_sems for write, and the rmap locks vma by vma: each child vma is
              found by rmap walks, after its parent, before its ptes are copied.
    Left out: VM_DONTCOPY, accounting, failure to allocate.
    """
    down_write(oldmm.mmap_sem)
    down_write(mm.mmap_sem)
    mm.mergeable = oldmm.mergeable
    for parent in oldmm.vmas:
        child = VmAreaStruct(mm, parent.vm_start, parent.vm_end, 0, parent.vm_file, parent.vm_pgoff)
        child.prot_write = parent.prot_write
        child.hugetlb = parent.hugetlb
        child._vm_flags = parent.vm_flags
        rmap.anon_vma_fork(child, parent)
        child.vm_flags &= ~VM_LOCKED
        mapping = child.vm_file
        if mapping is not None:
            down_write(mapping.i_mmap_rwsem)
            mapping.i_mmap.insert(mapping.i_mmap.index(parent) + 1, child)
            up_write(mapping.i_mmap_rwsem)
        mm.vmas.append(child)
        memory.copy_page_range(k, child, parent)
    up_write(mm.mmap_sem)
    up_write(oldmm.mmap_sem)


def do_fork(k: Kernel, mm: MmStruct, name: str) -> int:
    """fork(2): process `name` begins anew as a copy of this one.

    Source:   kernel/fork.c copy_mm(), dup_mm(); kernel/cgroup.c cgroup_post_fork(), v4.3.
    Context:  process context. Only at the end is the child in the group its parent is in then.
    Returns:  0; -EAGAIN: there is a process of that name that has begun its work.
    """
    child = MmStruct(k.machine, name)
    if not take_process(k, child):
        return EAGAIN
    dup_mmap(k, child, mm)
    child._memcg = mm.memcg
    finish_fork(child)
    return 0


def mmput(k: Kernel, mm: MmStruct) -> None:
    """Drop a user of an address space; the last one takes it down. Source: kernel/fork.c, v4.3."""
    if put_mm_user(mm):
        aio.exit_aio(k, mm)
        ksm.ksm_exit(mm)
        mmap.exit_mmap(k, mm)
