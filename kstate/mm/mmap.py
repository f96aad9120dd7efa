"""mm/mmap.c: vmas, mapping and unmapping, and the end of an address space."""

from __future__ import annotations

from collections.abc import Sequence

from kstate.flags import VM_LOCKED, VM_SOFTDIRTY
from kstate.fs import fuse
from kstate.machine import down_write, up_write
from kstate.mm import memory, mlock, rmap, swap
from kstate.patches import FIX_VMA_MERGE_FLAGS
from kstate.structs import AddressSpace, AnonVma, Kernel, MmStruct, Page, VmAreaStruct


def find_vma(mm: MmStruct, address: int) -> VmAreaStruct | None:
    """The first vma that ends above an address. Context: mmap_sem held. No step.

    Source:   mm/mmap.c find_vma(), v4.3.
    """
    for vma in mm.vmas:
        if address < vma.vm_end:
            return vma
    return None


def vma_link(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Insert a vma by address, and into its file's i_mmap.

    Source:   mm/mmap.c vma_link(), v4.3.
    Context:  mmap_sem held for write; takes i_mmap_rwsem for write.
    """
    mapping = vma.vm_file
    if mapping is not None:
        down_write(mapping.i_mmap_rwsem)
    _insert(mm, vma)
    if mapping is not None:
        rmap.insert_by_pgoff(mapping.i_mmap, vma)
        up_write(mapping.i_mmap_rwsem)


def _insert(mm: MmStruct, vma: VmAreaStruct) -> None:
    at = 0
    while at < len(mm.vmas) and mm.vmas[at].vm_start < vma.vm_start:
        at += 1
    mm.vmas.insert(at, vma)


def vma_adjust(
    moves: Sequence[tuple[VmAreaStruct, int, int]],
    *,
    insert: VmAreaStruct | None = None,
    remove: VmAreaStruct | None = None,
) -> None:
    """Move the boundaries of neighbouring vmas, all at once for any rmap walk.

    Source:   mm/mmap.c vma_adjust(), anon_vma_merge(), v4.3.
    Context:  mmap_sem held for write; takes i_mmap_rwsem and the anon_vma's rwsem for write.
    Args:     moves: (vma, new start, new end), page numbers. insert, remove: what appears, goes.
              What grows takes over the anon_vmas of what shrinks or goes. A removed vma is on its
              anon_vmas a little longer than in its file. A moved one is linked anew: of those with
              one vm_pgoff, rmap walks come to it last, whether or not that has changed.
    """
    first, last = moves[0][0], moves[-1][0]
    if insert is None:
        grows = next(vma for vma, start, end in moves if end - start > vma.vm_end - vma.vm_start)
        shrinks = remove or (last if grows is first else first)
        if shrinks.anon_vma is not None and grows.anon_vma is None:
            grows.anon_vma = shrinks.anon_vma
            rmap.anon_vma_clone(grows, shrinks)
    mapping = first.vm_file
    anon_vma = first.anon_vma or last.anon_vma
    if mapping is not None:
        down_write(mapping.i_mmap_rwsem)
        if insert is not None:
            rmap.insert_by_pgoff(mapping.i_mmap, insert)
    if anon_vma is not None:
        down_write(anon_vma.rwsem)
    for vma, start, end in moves:
        for tree in _trees(vma):
            tree.remove(vma)
        vma.vm_pgoff += start - vma.vm_start
        vma.vm_start, vma.vm_end = start, end
    if mapping is not None:
        for vma, _, _ in reversed(moves):
            rmap.insert_by_pgoff(mapping.i_mmap, vma)
    for vma, _, _ in moves:
        for anon in vma.anon_vma_chain:
            rmap.insert_by_pgoff(anon.vmas, vma)
    if insert is not None:
        _insert(insert.vm_mm, insert)
    if remove is not None:
        remove.vm_mm.vmas.remove(remove)
        if mapping is not None:
            mapping.i_mmap.remove(remove)
    if anon_vma is not None:
        up_write(anon_vma.rwsem)
    if mapping is not None:
        up_write(mapping.i_mmap_rwsem)
    if remove is not None:
        rmap.unlink_anon_vmas(remove)
        remove.machine.note("vma-freed", remove)


def _trees(vma: VmAreaStruct) -> list[list[VmAreaStruct]]:
    """The interval trees a vma is in."""
    trees = [anon_vma.vmas for anon_vma in vma.anon_vma_chain]
    if vma.vm_file is not None:
        trees.append(vma.vm_file.i_mmap)
    return trees


def split_vma(k: Kernel, vma: VmAreaStruct, at: int, *, new_below: bool) -> VmAreaStruct:
    """Cut a vma in two at a page number.

    Source:   mm/mmap.c split_vma(), __split_vma(), v4.3.
    Context:  mmap_sem held for write; takes the rmap locks for write. For a moment the new vma is
              on the anon_vmas while the old one still has its full size.
    Args:     new_below: the new vma is the lower part, else the upper.
    Returns:  the new vma.
    """
    if new_below:
        start, end, pgoff = vma.vm_start, at, vma.vm_pgoff
        rest = (vma, at, vma.vm_end)
    else:
        start, end, pgoff = at, vma.vm_end, vma.vm_pgoff + at - vma.vm_start
        rest = (vma, vma.vm_start, at)
    new = VmAreaStruct(vma.vm_mm, start, end, vma.vm_flags, vma.vm_file, pgoff)
    new.prot_write = vma.prot_write
    new.anon_vma = vma.anon_vma
    rmap.anon_vma_clone(new, vma)
    vma_adjust([rest], insert=new)
    return new


def vma_merge(
    k: Kernel, vma: VmAreaStruct, start: int, end: int, newflags: int
) -> VmAreaStruct | None:
    """Let a range of `vma` that is about to have `newflags` join neighbours that have them.

    Source:   mm/mmap.c vma_merge(), v4.3, for a range of an existing vma.
                                               Patches: fix:vma-merge-flags.
    Context:  mmap_sem held for write; takes the rmap locks for write. A whole vma that merges with
              the next one stays, with its old flags until the caller stores the new ones.
    Returns:  the vma that swallowed the range, or None.
    """
    mm = vma.vm_mm
    at = mm.vmas.index(vma)
    before = mm.vmas[at - 1] if start == vma.vm_start and at > 0 else None
    after = mm.vmas[at + 1] if end == vma.vm_end and at + 1 < len(mm.vmas) else None
    if before is not None and not _can_merge(before, vma, newflags, before.vm_end == start):
        before = None
    if after is not None and not _can_merge(after, vma, newflags, after.vm_start == end):
        after = None
    whole = start == vma.vm_start and end == vma.vm_end
    if before is not None:
        if whole:
            vma_adjust([(before, before.vm_start, end)], remove=vma)
            if after is not None and _one_anon_vma(before.anon_vma, after.anon_vma):
                vma_adjust([(before, before.vm_start, after.vm_end)], remove=after)
        else:
            vma_adjust([(before, before.vm_start, end), (vma, end, vma.vm_end)])
        return before
    if after is None:
        return None
    if whole:
        if FIX_VMA_MERGE_FLAGS in k.patches:
            vma_adjust([(after, start, after.vm_end)], remove=vma)
            return after
        vma_adjust([(vma, start, after.vm_end)], remove=after)
        return vma
    vma_adjust([(vma, vma.vm_start, start), (after, start, after.vm_end)])
    return after


def _one_anon_vma(one: AnonVma | None, other: AnonVma | None) -> bool:
    return one is None or other is None or one is other


def _can_merge(other: VmAreaStruct, vma: VmAreaStruct, newflags: int, adjacent: bool) -> bool:
    """Source: mm/mmap.c is_mergeable_vma(), is_mergeable_anon_vma(), v4.3. One that lacks an
    anon_vma takes the other's, unless that was cloned from a parent. One with a vm_ops->close, as
    fuse has it, stays by itself."""
    if other.vm_file is not None and other.vm_file.fs == "fuse":
        return False
    mergeable_anon = other.anon_vma is vma.anon_vma or (
        (other.anon_vma is None or vma.anon_vma is None) and len(other.anon_vma_chain) == 1
    )
    return (
        adjacent
        and (other.vm_flags ^ newflags) & ~VM_SOFTDIRTY == 0
        and other.vm_file is vma.vm_file
        and other.vm_pgoff - other.vm_start == vma.vm_pgoff - vma.vm_start
        and mergeable_anon
    )


def mmap_region(
    k: Kernel,
    mm: MmStruct,
    start: int,
    end: int,
    vm_flags: int,
    mapping: AddressSpace | None,
    pgoff: int,
) -> int:
    """mmap(MAP_FIXED): what was there goes first.

    Source:   mm/mmap.c do_mmap(), mmap_region(), v4.3.
    Context:  mmap_sem held for write.
    Args:     start, end, pgoff: page numbers.
    Left out: merging with neighbours, accounting, MAP_POPULATE and MAP_LOCKED.
    """
    do_munmap(k, mm, start, end)
    vma = VmAreaStruct(
        mm, start, end, vm_flags | VM_SOFTDIRTY, mapping, start if mapping is None else pgoff
    )
    memory.vma_set_page_prot(vma)
    vma_link(mm, vma)
    return 0


def do_munmap(k: Kernel, mm: MmStruct, start: int, end: int) -> int:
    """munmap(2).

    Source:   mm/mmap.c do_munmap(), unmap_region(), v4.3.
    Context:  mmap_sem held for write throughout.
    Args:     start, end: page numbers.
    """
    vma = find_vma(mm, start)
    if vma is None or vma.vm_start >= end:
        return 0
    if start > vma.vm_start:
        split_vma(k, vma, start, new_below=True)
    last = find_vma(mm, end)
    if last is not None and end > last.vm_start:
        split_vma(k, last, end, new_below=True)
    doomed = [v for v in mm.vmas if v.vm_start >= start and v.vm_end <= end]
    if mm.locked_vm:
        for vma in doomed:
            if vma.vm_flags & VM_LOCKED:
                mm.locked_vm -= vma.vm_end - vma.vm_start
                mlock.munlock_vma_pages_range(k, vma, vma.vm_start, vma.vm_end)
    mm.vmas = [v for v in mm.vmas if v not in doomed]
    unmap_region(k, doomed)
    return 0


def unmap_region(k: Kernel, vmas: list[VmAreaStruct]) -> None:
    """Unmap the pages of vmas, then forget the vmas, then release the pages, then close the vmas.

    Source:   mm/mmap.c unmap_region(), free_pgtables(), unlink_file_vma(), remove_vma(), v4.3.
    Context:  takes each ptl, and after it the rmap locks for write: a walk that has begun delays
              the release, not the unmapping.
    """
    swap.lru_add_drain(k)
    gathered: list[Page] = []
    for vma in vmas:
        memory.unmap_page_range(k, gathered, vma, vma.vm_start, vma.vm_end)
    for vma in vmas:
        for address in range(vma.vm_start, vma.vm_end):
            memory.pte_offset(vma.vm_mm, address).has_table = False
        rmap.unlink_anon_vmas(vma)
        mapping = vma.vm_file
        if mapping is not None:
            down_write(mapping.i_mmap_rwsem)
            mapping.i_mmap.remove(vma)
            up_write(mapping.i_mmap_rwsem)
    memory.tlb_finish_mmu(k, gathered)
    for vma in vmas:
        if vma.vm_file is not None and vma.vm_file.fs == "fuse":
            fuse.fuse_vma_close(k, vma)
        k.machine.note("vma-freed", vma)


def exit_mmap(k: Kernel, mm: MmStruct) -> None:
    """The last user of an address space is gone.

    Source:   mm/mmap.c exit_mmap(), v4.3; kernel/fork.c check_mm().
    Context:  **mmap_sem is not held**, by anybody; rmap walks still find the vmas.
    Bugs:     reports Bad rss-counter state.
    """
    if mm.locked_vm:
        for vma in mm.vmas:
            if vma.vm_flags & VM_LOCKED:
                mlock.munlock_vma_pages_range(k, vma, vma.vm_start, vma.vm_end)
    unmap_region(k, mm.vmas)
    mm.vmas = []
    for index, value in enumerate(mm.rss):
        if value:
            k.machine.report(
                "bad-rss-counter",
                f"BUG: Bad rss-counter state mm:{mm.name} idx:{index} val:{value}",
                "mm/mmap.py:exit_mmap",
                mm,
            )
    k.machine.note("mm-freed", mm)
