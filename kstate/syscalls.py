"""All a user task may do: operations, their arguments, what they return.

An operation names its process. On something that does not exist, or exists no more, it returns an
errno: every program that parses can run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kstate import pool
from kstate.flags import (
    ENODEV,
    ENOMEM,
    EOPNOTSUPP,
    ESRCH,
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_WRITE,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    SIGBUS,
    SIGSEGV,
    VM_FAULT_FROZEN,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
)
from kstate.fs import aio, drop_caches, fuse, libfs, task_mmu
from kstate.kernel import fork
from kstate.machine import down_read, down_write, up_read, up_write
from kstate.mm import (
    balloon_compaction,
    compaction,
    huge_memory,
    hugetlb,
    ksm,
    madvise,
    memcontrol,
    memory,
    memory_failure,
    migrate,
    mlock,
    mmap,
    mprotect,
    mremap,
    page_writeback,
    shmem,
    swap,
    vmscan,
)
from kstate.structs import (
    MEMCGS_COUNT,
    AddressSpace,
    Kernel,
    MmStruct,
    begin_exit,
    find_process,
    get_mm_user,
    touch_pte,
)

SLOTS_COUNT = 4
SLOT_PAGES = 2
SLOT_STRIDE = 16  # a fault-around window of its own for each slot
HUGETLBFS = "hugetlbfs"
KINDS = {
    "anon": (None, 0),
    "tmpfs_shared": ("f0", VM_SHARED),
    "tmpfs_private": ("f0", 0),
    "ext2_shared": ("f1", VM_SHARED),
    "ext2_private": ("f1", 0),
    "ramfs_shared": ("f2", VM_SHARED),
    "fuse_shared": ("f3", VM_SHARED),
    "thp": (None, VM_HUGEPAGE),
    "hugetlb_shared": (HUGETLBFS, VM_SHARED | VM_HUGETLB | VM_SPECIAL),
    "hugetlb_private": (None, VM_HUGETLB | VM_SPECIAL),
}
FILES = {"f0": "tmpfs", "f1": "ext2", "f2": "ramfs", "f3": "fuse"}
PROTECTIONS = ("ro", "rw")
FILE_PAGES_MAX = 2
GROUPS_COUNT = MEMCGS_COUNT
# What can be made to fail, as `machine.fault` asks for it.
FAULTS = (
    "alloc_hugepage",
    "alloc_page",
    "get_swap_page",
    "isolate_lru_page",
    "split_huge_page",
    "swap_duplicate",
    "try_charge",
)

# Argument types, as an operation's usage spells them.
SLOT, PAGE, COUNT, KIND, NODE, POOL = "S", "S.P", "+N", "KIND", "nodeN", "poolN"
FILE, PAGES, PROTECTION, PROCESS, GROUP = "fF", "N", "ro|rw", "P", "memcgN"
Argument = int | str


@dataclass(frozen=True)
class Operation:
    """One operation. arguments: their types, in order. source: the kernel function it enters by.
    returns: in words, errnos included. call: (kernel, process, arguments) -> return value.
    breaks: the rule of the kernel's that it breaks, if it does: such an operation is for mutation
    tests, and is never made up by a generator.
    An S.P argument arrives as a page number, an S as the first page number of the slot."""

    name: str
    arguments: tuple[str, ...]
    summary: str
    source: str
    returns: str
    call: Callable[..., int]
    breaks: str = ""


def slot_start(slot: int) -> int:
    """First page number of a slot."""
    return slot * SLOT_STRIDE


def file_of(k: Kernel, name: str) -> AddressSpace:
    """A file by name; f2 and f3 are made when they are first asked for."""
    mapping = k.files.get(name)
    if mapping is None:
        mapping = AddressSpace(k.machine, name, FILES[name], i_size=FILE_PAGES_MAX)
        k.files[name] = mapping
    return mapping


def access(k: Kernel, mm: MmStruct, address: int, write: bool) -> int:
    """One byte read or written by the user.

    Source:   arch/x86/mm/fault.c __do_page_fault(), v4.3, and the MMU.
    Context:  user mode; the fault takes mmap_sem for read.
    Returns:  0, or the signal: -1011 SIGSEGV, -1007 SIGBUS; -ENOMEM stands for the OOM killer.
    """
    flags = FAULT_FLAG_ALLOW_RETRY | (FAULT_FLAG_WRITE if write else 0)
    while not touch_pte(k, memory.pte_offset(mm, address), write):
        down_read(mm.mmap_sem)
        vma = mmap.find_vma(mm, address)
        if vma is None or address < vma.vm_start:
            up_read(mm.mmap_sem)
            return SIGSEGV
        if not vma.vm_flags & (VM_WRITE if write else VM_READ):
            up_read(mm.mmap_sem)
            return SIGSEGV
        ret = memory.handle_mm_fault(k, vma, address, flags)
        if ret & VM_FAULT_RETRY:  # mmap_sem is dropped already; once more, and wait under it
            flags &= ~FAULT_FLAG_ALLOW_RETRY
            continue
        up_read(mm.mmap_sem)
        flags |= FAULT_FLAG_ALLOW_RETRY  # the next fault is another
        if ret & VM_FAULT_FROZEN:
            migrate.migration_entry_unfrozen(memory.pte_offset(mm, address))
        if ret & VM_FAULT_SIGBUS:
            return SIGBUS
        if ret & VM_FAULT_OOM:
            return ENOMEM
    return 0


def op_map(k: Kernel, mm: MmStruct, start: int, kind: str) -> int:
    file, flags = KINDS[kind]
    mapping = hugetlb.hstate(k).file if file == HUGETLBFS else file_of(k, file) if file else None
    down_write(mm.mmap_sem)
    ret = mmap.mmap_region(
        k,
        mm,
        start,
        start + SLOT_PAGES,
        VM_READ | VM_WRITE | flags,
        mapping,
        0,
    )
    up_write(mm.mmap_sem)
    return ret


def op_unmap(k: Kernel, mm: MmStruct, start: int) -> int:
    down_write(mm.mmap_sem)
    ret = mmap.do_munmap(k, mm, start, start + SLOT_PAGES)
    up_write(mm.mmap_sem)
    return ret


def op_read(k: Kernel, mm: MmStruct, address: int) -> int:
    return access(k, mm, address, False)


def op_write(k: Kernel, mm: MmStruct, address: int) -> int:
    return access(k, mm, address, True)


def op_mlock(k: Kernel, mm: MmStruct, address: int, count: int) -> int:
    return mlock.sys_mlock(k, mm, address, address + count)


def op_munlock(k: Kernel, mm: MmStruct, address: int, count: int) -> int:
    return mlock.sys_munlock(k, mm, address, address + count)


def op_move(k: Kernel, mm: MmStruct, address: int, node: int) -> int:
    if node >= len(k.zones):
        swap.lru_add_drain_all(k)  # migrate_prep(), before anything is looked at
        return ENODEV
    return migrate.sys_move_pages(k, mm, address, node, True)


def op_exit(k: Kernel, mm: MmStruct) -> int:
    begin_exit(mm)
    fork.mmput(k, mm)  # the process's own; threads at work hold theirs
    return 0


def op_shrink(k: Kernel, mm: MmStruct, node: int) -> int:
    if node >= len(k.zones):
        return ENODEV
    return vmscan.shrink_inactive_list(k, k.zones[node], LRU_INACTIVE_FILE)[0]


def op_swapout(k: Kernel, mm: MmStruct, node: int) -> int:
    if node >= len(k.zones):
        return ENODEV
    return vmscan.shrink_inactive_list(k, k.zones[node], LRU_INACTIVE_ANON)[0]


def op_age(k: Kernel, mm: MmStruct, node: int) -> int:
    if node >= len(k.zones):
        return ENODEV
    for lru in (LRU_ACTIVE_ANON, LRU_ACTIVE_FILE):
        vmscan.shrink_active_list(k, k.zones[node], lru)
    return 0


def op_reclaim(k: Kernel, mm: MmStruct) -> int:
    return vmscan.mem_cgroup_force_empty(k)


def op_fork(k: Kernel, mm: MmStruct, name: str) -> int:
    return fork.do_fork(k, mm, name)


def op_mprotect(k: Kernel, mm: MmStruct, start: int, protection: str) -> int:
    return mprotect.sys_mprotect(k, mm, start, start + SLOT_PAGES, protection == "rw")


def op_mremap(k: Kernel, mm: MmStruct, old: int, new: int) -> int:
    return mremap.sys_mremap(k, mm, old, new, SLOT_PAGES)


def op_dontneed(k: Kernel, mm: MmStruct, start: int) -> int:
    return madvise.madvise_dontneed(k, mm, start, start + SLOT_PAGES)


def op_clear_refs(k: Kernel, mm: MmStruct) -> int:
    return task_mmu.clear_refs_write(k, mm)


def op_truncate(k: Kernel, mm: MmStruct, file: str, pages: int) -> int:
    libfs.notify_change(k, file_of(k, file), pages)
    return 0


def op_punch(k: Kernel, mm: MmStruct, file: str, page: int) -> int:
    mapping = file_of(k, file)
    if not mapping.shmem:
        return EOPNOTSUPP
    return shmem.shmem_fallocate_punch(k, mapping, page, page + 1)


def op_fsync(k: Kernel, mm: MmStruct, file: str) -> int:
    return libfs.vfs_fsync(k, file_of(k, file))


def op_pwrite(k: Kernel, mm: MmStruct, file: str, page: int) -> int:
    return libfs.generic_file_write(k, file_of(k, file), page, FILE_PAGES_MAX)


def op_splice(k: Kernel, mm: MmStruct, page: int) -> int:
    return fuse.fuse_splice_read(k, file_of(k, "f3"), file_of(k, "f1"), page)


def op_io_setup(k: Kernel, mm: MmStruct, start: int) -> int:
    return aio.io_setup(k, mm, start, SLOT_PAGES)


def op_gfp(k: Kernel, mm: MmStruct, file: str, node: int) -> int:
    if node >= len(k.zones):
        return ENODEV
    mapping = file_of(k, file)
    if not mapping.shmem:
        return EOPNOTSUPP
    mapping.gfp_node = node
    return 0


def op_willneed(k: Kernel, mm: MmStruct, start: int) -> int:
    return madvise.madvise_willneed(k, mm, start, start + SLOT_PAGES)


def op_drop_caches(k: Kernel, mm: MmStruct) -> int:
    drop_caches.drop_pagecache(k)
    return 0


def op_compact(k: Kernel, mm: MmStruct, node: int) -> int:
    if node >= len(k.zones):
        return ENODEV
    return compaction.compact_zone(k, k.zones[node])


def op_dirty(k: Kernel, mm: MmStruct, file: str, page: int) -> int:
    return page_writeback.dirty_cached_page(k, file_of(k, file), page)


def op_drain(k: Kernel, mm: MmStruct) -> int:
    swap.lru_add_drain_all(k)
    return 0


def op_numa(k: Kernel, mm: MmStruct, address: int, node: int) -> int:
    if node >= len(k.zones):
        return ENODEV
    return huge_memory.do_huge_pmd_numa_page(k, mm, address, node)


def op_mf_look(k: Kernel, mm: MmStruct, address: int) -> int:
    return memory_failure.memory_failure(k, mm, address)


def op_mergeable(k: Kernel, mm: MmStruct, start: int) -> int:
    return madvise.madvise_mergeable(k, mm, start, start + SLOT_PAGES, True)


def op_unmergeable(k: Kernel, mm: MmStruct, start: int) -> int:
    return madvise.madvise_mergeable(k, mm, start, start + SLOT_PAGES, False)


def op_ksm_merge(k: Kernel, mm: MmStruct, address: int, name: str, other: int) -> int:
    other_mm = find_process(k, name)
    return ESRCH if other_mm is None else ksm.ksm_do_scan(k, mm, address, other_mm, other)


def op_attach(k: Kernel, mm: MmStruct, number: int) -> int:
    return memcontrol.cgroup_attach(k, mm, number)


def op_pool_migrate(k: Kernel, mm: MmStruct, address: int) -> int:
    return pool.pool_migrate(k, mm, address)


def op_inflate(k: Kernel, mm: MmStruct) -> int:
    return balloon_compaction.fill_balloon(k)


def op_deflate(k: Kernel, mm: MmStruct) -> int:
    return balloon_compaction.leak_balloon(k)


def op_balloon_migrate(k: Kernel, mm: MmStruct) -> int:
    return pool.balloon_migrate(k)


def op_pool_lookup(k: Kernel, mm: MmStruct, number: int) -> int:
    return pool.pool_lookup(k, k.pool, number)


def op_huge_migrate(k: Kernel, mm: MmStruct, address: int) -> int:
    return pool.huge_migrate(k, mm, address)


def op_huge_lookup(k: Kernel, mm: MmStruct, number: int) -> int:
    return pool.pool_lookup(k, hugetlb.hstate(k).pool, number)


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            "map",
            (SLOT, KIND),
            "mmap(MAP_FIXED) of a slot of two pages, read and write; KIND: anon, tmpfs_shared or "
            "tmpfs_private (file f0), ext2_shared or ext2_private (file f1), ramfs_shared (f2), "
            "fuse_shared (f3), hugetlb_shared (a file of hugetlbfs), from offset 0, or "
            "hugetlb_private or thp, both anonymous; the last three are of two huge pages",
            "mm/mmap.c mmap_region()",
            "0",
            op_map,
        ),
        Operation("unmap", (SLOT,), "munmap of a slot", "mm/mmap.c do_munmap()", "0", op_unmap),
        Operation(
            "read",
            (PAGE,),
            "read one byte",
            "mm/memory.c handle_mm_fault()",
            "0; -1007 SIGBUS; -1011 SIGSEGV; -12",
            op_read,
        ),
        Operation(
            "write",
            (PAGE,),
            "write one byte",
            "mm/memory.c handle_mm_fault()",
            "0; -1007 SIGBUS; -1011 SIGSEGV; -12",
            op_write,
        ),
        Operation(
            "mlock",
            (PAGE, COUNT),
            "mlock(2) of N pages from a page on",
            "mm/mlock.c do_mlock()",
            "0; -12 ENOMEM: part is not mapped or cannot be populated; -11 EAGAIN: no memory",
            op_mlock,
        ),
        Operation(
            "munlock",
            (PAGE, COUNT),
            "munlock(2) of N pages from a page on",
            "mm/mlock.c do_mlock()",
            "0; -12 ENOMEM: part is not mapped",
            op_munlock,
        ),
        Operation(
            "move",
            (PAGE, NODE),
            "move_pages(2) with MPOL_MF_MOVE_ALL of one page",
            "mm/migrate.c do_pages_move()",
            "the page's status: its node; -2 not present; -14 zero page or not mapped; -16 not on "
            "the LRU; -11 not migrated; -12; -19 no such node",
            op_move,
        ),
        Operation(
            "mprotect",
            (SLOT, PROTECTION),
            "mprotect(2) of a slot, to read only or to read and write",
            "mm/mprotect.c mprotect_fixup()",
            "0; -12 ENOMEM: part is not mapped",
            op_mprotect,
        ),
        Operation(
            "mremap",
            (SLOT, SLOT),
            "mremap(2) of a slot to another, MREMAP_FIXED",
            "mm/mremap.c move_vma()",
            "0; -22 EINVAL: the same slot, or huge pages of a pool; -14 EFAULT: not within one "
            "vma; -12 ENOMEM: no memory to take KSM pages apart",
            op_mremap,
        ),
        Operation(
            "dontneed",
            (SLOT,),
            "madvise(MADV_DONTNEED) of a slot",
            "mm/madvise.c madvise_dontneed()",
            "0; -22 EINVAL: locked; -12 ENOMEM: part is not mapped",
            op_dontneed,
        ),
        Operation(
            "clear_refs",
            (),
            "write 4 to the process's own /proc/PID/clear_refs: forget what was written to so far",
            "fs/proc/task_mmu.c clear_refs_write()",
            "0",
            op_clear_refs,
        ),
        Operation(
            "truncate",
            (FILE, PAGES),
            "ftruncate(2) of a file to N pages, 0 to 2",
            "mm/truncate.c truncate_pagecache()",
            "0",
            op_truncate,
        ),
        Operation(
            "punch",
            (FILE, PAGES),
            "fallocate(FALLOC_FL_PUNCH_HOLE) of page N of a tmpfs file",
            "mm/shmem.c shmem_fallocate()",
            "0; -95 not supported by ext2",
            op_punch,
        ),
        Operation(
            "fsync", (FILE,), "fsync(2) of a file", "fs/ext2/file.c ext2_fsync()", "0", op_fsync
        ),
        Operation(
            "pwrite",
            (FILE, PAGES),
            "pwrite(2) of page N of a file, which grows to that",
            "mm/filemap.c generic_perform_write()",
            "0; -27 EFBIG: a file has two pages; -12",
            op_pwrite,
        ),
        Operation(
            "splice",
            (PAGES,),
            "read page N of f3 (fuse); its server splices page N of f1, or one of its own, to be "
            "taken as it is",
            "mm/filemap.c replace_page_cache_page()",
            "0; -22 beyond the file; -12",
            op_splice,
        ),
        Operation(
            "io_setup",
            (SLOT,),
            "io_setup(2), with the ring mapped at a slot; the ring goes when the process exits",
            "fs/aio.c aio_setup_ring()",
            "0; -11 there is a ring already; -12",
            op_io_setup,
        ),
        Operation(
            "gfp",
            (FILE, NODE),
            "a driver that uses a tmpfs file wants its pages on a node, or one below",
            "include/linux/pagemap.h mapping_set_gfp_mask()",
            "0; -95 not tmpfs; -19 no such node",
            op_gfp,
        ),
        Operation(
            "willneed",
            (SLOT,),
            "madvise(MADV_WILLNEED) of a slot: read what is in swap, wherever there is room",
            "mm/madvise.c madvise_willneed()",
            "0; -12 ENOMEM: part is not mapped",
            op_willneed,
        ),
        Operation(
            "drop_caches",
            (),
            "write 1 to /proc/sys/vm/drop_caches",
            "fs/drop_caches.c drop_pagecache_sb()",
            "0",
            op_drop_caches,
        ),
        Operation(
            "fork",
            (PROCESS,),
            "fork(2): process P begins anew, as a copy of this one",
            "kernel/fork.c dup_mmap()",
            "0; -11 EAGAIN: P is in use",
            op_fork,
        ),
        Operation("exit", (), "exit(2) of the process", "mm/mmap.c exit_mmap()", "0", op_exit),
        Operation(
            "shrink",
            (NODE,),
            "direct reclaim: one round over a node's inactive file list",
            "mm/vmscan.c shrink_inactive_list()",
            "pages freed; -19 no such node",
            op_shrink,
        ),
        Operation(
            "swapout",
            (NODE,),
            "direct reclaim: one round over a node's inactive anonymous list, which swap and tmpfs "
            "pages are on",
            "mm/vmscan.c shrink_inactive_list()",
            "pages freed; -19 no such node",
            op_swapout,
        ),
        Operation(
            "age",
            (NODE,),
            "deactivate the pages of a node's active lists",
            "mm/vmscan.c shrink_active_list()",
            "0; -19 no such node",
            op_age,
        ),
        Operation(
            "reclaim",
            (),
            "write 0 to memory.force_empty of the group all processes are in: reclaim what can be",
            "mm/memcontrol.c mem_cgroup_force_empty()",
            "0",
            op_reclaim,
        ),
        Operation(
            "compact",
            (NODE,),
            "compact a node: migrate its pages, found by number, to free pages further up",
            "mm/compaction.c compact_zone()",
            "pages migrated; -19 no such node",
            op_compact,
        ),
        Operation(
            "dirty",
            (FILE, PAGES),
            "look page N of a file up in the page cache and mark it dirty, with a mere reference",
            "mm/page-writeback.c set_page_dirty()",
            "0; -2 not cached",
            op_dirty,
            breaks="set_page_dirty() wants the page locked, or mapped with the pte lock held",
        ),
        Operation(
            "drain",
            (),
            "put every CPU's queued pages on the LRU",
            "mm/swap.c lru_add_drain_all()",
            "0",
            op_drain,
        ),
        Operation(
            "numa",
            (PAGE, NODE),
            "a NUMA hinting fault on a huge page (map thp) that belongs on another node",
            "mm/huge_memory.c do_huge_pmd_numa_page()",
            "0: migrated; 1: not; -2 no huge page there, or there already; -19 no such node",
            op_numa,
        ),
        Operation(
            "mf_look",
            (PAGE,),
            "look at the page mapped here as memory_failure does, found by pfn: reference, split "
            "if huge, lock, unlock",
            "mm/memory-failure.c memory_failure()",
            "0; -2 nothing mapped; -16 a huge page that was not split",
            op_mf_look,
        ),
        Operation(
            "mergeable",
            (SLOT,),
            "madvise(MADV_MERGEABLE) of a slot: ksmd may merge its anonymous pages with others",
            "mm/ksm.c ksm_madvise()",
            "0; -12 ENOMEM: part is not mapped",
            op_mergeable,
        ),
        Operation(
            "unmergeable",
            (SLOT,),
            "madvise(MADV_UNMERGEABLE) of a slot: what was merged is copied again",
            "mm/ksm.c ksm_madvise()",
            "0; -12 ENOMEM: part is not mapped; -11 EAGAIN: no memory",
            op_unmergeable,
        ),
        Operation(
            "ksm_merge",
            (PAGE, PROCESS, PAGE),
            "ksmd comes by a page, having met one of process P that may hold the same: merges them "
            "if they do (pages nobody wrote to, as mlock makes them, do)",
            "mm/ksm.c ksm_do_scan()",
            "0; -2 no page that may be merged; -3 no process P; -11 not merged",
            op_ksm_merge,
        ),
        Operation(
            "attach",
            (GROUP,),
            "put the process into memory group M0 (where all begin) or M1, its charges with it",
            "mm/memcontrol.c mem_cgroup_move_charge()",
            "0; -22 no such group",
            op_attach,
        ),
        Operation(
            "pool_migrate",
            (PAGE,),
            "migrate the page mapped here into a page of the pool, found by pfn, holding no "
            "mmap_sem",
            "mm/migrate.c migrate_pages()",
            "0; -2 nothing mapped; -16 not on the LRU; -11 not migrated; -12 the pool is empty",
            op_pool_migrate,
        ),
        Operation(
            "pool_lookup",
            (POOL,),
            "look at a page of the pool as a previous user would: reference, lock, unlock",
            "mm/memory-failure.c memory_failure()",
            "0; -2 no such page, or it is free",
            op_pool_lookup,
        ),
        Operation(
            "inflate",
            (),
            "the balloon driver takes one page more and gives it to the host",
            "mm/balloon_compaction.c balloon_page_enqueue()",
            "0; -12 no memory",
            op_inflate,
        ),
        Operation(
            "deflate",
            (),
            "the balloon driver gives one page back",
            "mm/balloon_compaction.c balloon_page_dequeue()",
            "0; -2 the balloon is flat; -11 its pages are locked or isolated",
            op_deflate,
        ),
        Operation(
            "balloon_migrate",
            (),
            "migrate a page of the balloon into a page of the pool, found by pfn",
            "mm/migrate.c migrate_pages()",
            "0; -2 the balloon is flat; -16 its pages are locked or isolated; -11 not migrated; "
            "-12 the pool is empty",
            op_balloon_migrate,
        ),
        Operation(
            "huge_migrate",
            (PAGE,),
            "migrate the huge page mapped here into a huge page of a pool, found by pfn, holding "
            "no mmap_sem",
            "mm/migrate.c migrate_pages()",
            "0; -2 no huge page mapped; -16 isolated already; -11 not migrated; -12 the pool is "
            "empty",
            op_huge_migrate,
        ),
        Operation(
            "huge_lookup",
            (POOL,),
            "look at a huge page of the pool as a previous user would: reference, lock, unlock",
            "mm/memory-failure.c memory_failure()",
            "0; -2 no such page, or it is free",
            op_huge_lookup,
        ),
    )
}


def call(k: Kernel, process: str, name: str, arguments: tuple[Argument, ...]) -> int:
    """Run one operation as one of the process's threads.

    Returns: what the system call returns; -ESRCH where the process is not there any more.
    """
    k.machine.note("operation-begin", process, name, arguments)
    mm = find_process(k, process)
    ret = ESRCH
    if mm is not None and get_mm_user(mm):
        k.current_mms[k.machine.current.index] = mm
        ret = OPERATIONS[name].call(k, mm, *arguments)
        fork.mmput(k, mm)
    k.machine.note("operation-end", process, name, arguments, ret)
    return ret


def settle(k: Kernel) -> None:
    """After the last task: drain every pagevec. No reclaim, no process exit."""
    swap.lru_add_drain_all(k)
