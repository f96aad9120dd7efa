"""Each oracle and each kernel check is caught in the act by a planted bug."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fuzz.findings import FINDINGS
from fuzz.oracles import ORACLES
from fuzz.prog import parse
from fuzz.run import Outcome, run
from fuzz.schedulers import Default
from kstate import MachineSize, boot, parse_spec, pool
from kstate.flags import (
    PG_active,
    PG_dirty,
    PG_locked,
    PG_lru,
    PG_mlocked,
    PG_private,
    PG_reclaim,
    PG_swapbacked,
    PG_swapcache,
    PG_unevictable,
    PG_uptodate,
    PG_writeback,
)
from kstate.fs import aio, buffer, fuse
from kstate.machine import KernelBug, Machine, Operand, Point, Task
from kstate.mm import (
    balloon_compaction,
    filemap,
    gup,
    huge_memory,
    hugetlb,
    ksm,
    memcontrol,
    memory,
    migrate,
    mlock,
    mmap,
    page_alloc,
    page_io,
    page_writeback,
    rmap,
    shmem,
    swap,
    swap_state,
    swapfile,
    truncate,
    vmscan,
)
from kstate.pageflags import (
    SetPageReferenced,
    get_page,
    lock_page,
    page_unfreeze_refs,
    put_page_testzero,
    unlock_page,
)
from kstate.patches import CLEAN
from kstate.structs import (
    NO_STABLE_NODE,
    AddressSpace,
    AnonVma,
    Kernel,
    KioCtx,
    MemCgroup,
    MmStruct,
    Page,
    PteVal,
    RmapItem,
    StableNode,
    VmAreaStruct,
    list_add,
)

HEAD = f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=2 pages=16 pool=0\n"
LOCKED = HEAD + "init:\n  A map 0 tmpfs_shared\n  B map 0 tmpfs_shared\n  A mlock 0.0 +1\n"
MOVE = LOCKED + "cpu0:\n  A move 0.0 node1\n"
UNMAP = LOCKED + "  B read 0.0\ncpu0:\n  A unmap 0\n"


DIRTY = HEAD + "init:\n  A map 0 ext2_shared\n  A write 0.0\ncpu0:\n  A move 0.0 node1\n"
ANON = (
    HEAD.replace("pool=0", "pool=1")
    + "init:\n  A map 0 anon\n  A write 0.0\n  A drain\ncpu0:\n  A pool_migrate 0.0\n"
)
SWAPPED = HEAD + (
    "init:\n  A map 0 anon\n  A write 0.0\n  A drain\n  A age node0\n  A swapout node0\n"
    "  A read 0.0\ncpu0:\n  A move 0.0 node1\n"
)
# B holds a reference while A's migration makes all its attempts.
PINNED = HEAD.replace("pool=0", "pool=1") + (
    "init:\n  A map 0 ext2_shared\n  B map 0 ext2_shared\n  A read 0.1\n  A read 0.0\n  A drain\n"
    "cpu0:\n  B read 0.1\ncpu1:\n  A pool_migrate 0.1\nschedule:\n"
    "  cpu1 until mm/migrate.py:__unmap_and_move test_bit(flags.writeback) #1\n"
    "  cpu0 until blocked\n  cpu1 to end\n"
)


def show(text: str) -> Outcome:
    return run(parse(text))


def nothing(*_: Any, **__: Any) -> None:
    return None


def unmarked(k: Kernel, page: Page) -> None:
    """Clears PG_mlocked without counting."""
    page._flags &= ~PG_mlocked


def lose_anon(k: Kernel, newpage: Page, page: Page, mapped: bool) -> None:
    """Forgets what the old page was, while somebody holds a reference (and keeps it)."""
    get_page(page)
    page.mapping = None


def touch_freed(k: Kernel, vma: VmAreaStruct, start: int, end: int) -> None:
    """Reads a vma that is gone."""
    k.machine.note("vma-freed", vma)
    assert vma.vm_flags


PLANTED: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "mlocked-page-leak": (UNMAP, lambda m: m.setattr(mlock, "munlock_vma_pages_range", nothing)),
    "nr-mlock-mismatch": (
        UNMAP,
        lambda m: m.setattr(mlock, "__munlock_pagevec", lambda k, pages, zone: [
            unmarked(k, page) for page in pages] and swap.release_pages(k, pages)),
    ),
    "mlock-lost-by-migration": (MOVE, lambda m: m.setattr(migrate, "P03", "no such patch")),
    "mlock-lost-by-rmap-walk": (
        LOCKED + "  B mlock 0.0 +1\ncpu0:\n  B munlock 0.0 +1\n",
        lambda m: m.setattr(rmap, "page_check_address", nothing),
    ),
    "refcount-mismatch": (UNMAP, lambda m: m.setattr(memory, "tlb_finish_mmu", nothing)),
    "mapcount-mismatch": (UNMAP, lambda m: m.setattr(rmap, "page_remove_rmap", nothing)),
    "lru-inconsistent": (
        MOVE,
        lambda m: m.setattr(
            swap, "add_page_to_lru_list", lambda page, zone, lru: list_add(page, zone, lru)
            or memcontrol.mem_cgroup_update_lru_size(page, zone, lru, 1)
        ),
    ),
    "migration-entry-left": (
        MOVE, lambda m: m.setattr(migrate, "remove_migration_ptes", nothing)),
    "memcg-stat-mismatch": (
        DIRTY, lambda m: m.setattr(memcontrol, "mem_cgroup_update_page_stat", nothing)),
    "memcg-charge-mismatch": (
        DIRTY, lambda m: m.setattr(memcontrol, "mem_cgroup_charge_statistics", nothing)),
    "memcg-lru-size-mismatch": (
        DIRTY, lambda m: m.setattr(memcontrol, "mem_cgroup_update_lru_size", nothing)),
    "dirty-tag-on-unaccounted-mapping": (
        HEAD + "init:\n  A io_setup 0\n  A write 0.0\ncpu0:\n  A move 0.0 node1\n",
        lambda m: m.setattr(migrate, "P12", "no such patch")),
    "rss-mismatch": (
        HEAD + "init:\n  A map 0 anon\n  A write 0.0\ncpu0:\n  A write 0.1\n",
        lambda m: m.setattr(memory, "MM_ANONPAGES", 0),
    ),
    "zone-counter-mismatch": (DIRTY, lambda m: m.setattr(migrate, "move_counters", nothing)),
    "swap-count-mismatch": (
        SWAPPED.replace("A read 0.0", "A drain").replace("A move 0.0 node1", "A fork B"),
        lambda m: m.setattr(swapfile, "swap_duplicate", nothing),
    ),
    "anon-vma-refcount-mismatch": (ANON, lambda m: m.setattr(migrate, "_put", nothing)),
    "extra-dirty-accounting": (DIRTY, lambda m: m.setattr(migrate, "P12", "no such patch")),
    "migration-made-swap-entry": (
        SWAPPED, lambda m: m.setattr(rmap, "P10", "no such patch")),
    "page-anon-lost": (
        ANON,
        lambda m: m.setattr(migrate, "let_go_of_old_page", lose_anon),
    ),
    "newpage-touched-early": (
        PINNED, lambda m: m.setattr(migrate, "P11", "no such patch")),
    "pool-leak": (
        PINNED, lambda m: m.setattr(pool, "pool_put_new_page", swap.put_page)),
    "newpage-residue": (PINNED, lambda m: m.setattr(migrate, "P11", "no such patch")),
    "write-lost": (
        HEAD + "init:\n  A map 0 ext2_shared\n  A write 0.0\n"
        "cpu0:\n  A unmap 0\n  A drop_caches\n",
        lambda m: m.setattr(memory.page_writeback, "set_page_dirty", nothing)),
    "soft-dirty-lost": (
        HEAD + "init:\n  A map 0 tmpfs_shared\n  A clear_refs\n  A read 0.0\n"
        "cpu0:\n  A write 0.0\n",
        lambda m: m.setattr(memory, "vma_wants_writenotify", lambda vma: False)),
    "use-after-free": (UNMAP, lambda m: m.setattr(mlock, "munlock_vma_pages_range", touch_freed)),
}  # fmt: skip


FORKED = HEAD + (
    "init:\n  A map 0 anon\n  A write 0.0\n  A fork B\n  B write 0.0\ncpu0:\n  B exit\n  A exit\n"
)


def exit_early(k: Kernel, mm: MmStruct) -> None:
    """Frees an mm whose page table is still to be taken apart."""
    k.machine.note("mm-freed", mm)
    EXIT_MMAP(k, mm)


def free_and_mark(k: Kernel, page: Page) -> None:
    FREE_PAGE(k, page)
    SetPageReferenced(page)


EXIT_MMAP, FREE_PAGE = mmap.exit_mmap, page_alloc.free_hot_cold_page
LIFETIMES: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "vma": (UNMAP, lambda m: m.setattr(mlock, "munlock_vma_pages_range", touch_freed)),
    "anon_vma": (FORKED, lambda m: m.setattr(rmap, "get_anon_vma", nothing)),
    "ptl@": (FORKED, lambda m: m.setattr(mmap, "exit_mmap", exit_early)),
    "page": (FORKED, lambda m: m.setattr(page_alloc, "free_hot_cold_page", free_and_mark)),
}


@pytest.mark.parametrize("what", LIFETIMES)
def test_nothing_is_touched_after_it_was_freed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, plant = LIFETIMES[what]
    assert show(text).findings == ()
    plant(monkeypatch)
    said = [finding.objects for finding in show(text).findings if finding.id == "use-after-free"]
    assert said, show(text).findings
    assert said[0][0].startswith(what)


def test_there_is_a_planted_bug_for_every_oracle() -> None:
    assert set(PLANTED) == {oracle.id for oracle in ORACLES}


@pytest.mark.parametrize("id", sorted(PLANTED))
def test_a_planted_bug_is_caught_and_without_it_all_is_quiet(
    id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, plant = PLANTED[id]
    assert show(text).outcome == "clean"
    plant(monkeypatch)
    assert id in show(text).ids


def in_kernel(act: Callable[[Kernel, Page], Any]) -> tuple[Machine, Any]:
    """Run `act` on a fresh kernel with one fresh page."""
    machine = Machine(Default())
    k = boot(machine, parse_spec("v4.4").toggles, MachineSize(), ("A",))

    def root() -> None:
        page = page_alloc.alloc_page(k)
        assert page is not None
        act(k, page)

    return machine, machine.run(root)


def with_flags(flags: int, **fields: Any) -> Callable[[Kernel, Page], None]:
    def act(k: Kernel, page: Page) -> None:
        page._flags |= flags
        page._refcount = 0
        for name, value in fields.items():
            setattr(page, name, value(k) if callable(value) else value)
        page_alloc.free_hot_cold_page(k, page)

    return act


def test_a_free_page_that_somebody_has_written_to_is_withheld() -> None:
    taken: list[Page | None] = []

    def spoil(k: Kernel, page: Page) -> None:
        pfn = page.pfn
        swap.put_page(k, page)
        assert k.zones[0].free_pfns[-1] == pfn
        page._flags = PG_mlocked
        taken.append(page_alloc.alloc_page(k))
        taken.append(page)

    machine, ending = in_kernel(spoil)
    assert ending is None
    assert [report.id for report in machine.reports] == ["bad-page-state-new"]
    assert taken[0] is not None
    assert taken[0] is not taken[1]


@pytest.mark.parametrize(
    ("id", "act"),
    [
        ("bad-page-state-mlocked", with_flags(PG_mlocked)),
        ("bad-page-state-locked", with_flags(PG_locked)),
        ("bad-page-state-lru", with_flags(PG_lru)),
        ("bad-page-state-active", with_flags(PG_active)),
        ("bad-page-state-unevictable", with_flags(PG_unevictable)),
        ("bad-page-state-writeback", with_flags(PG_writeback)),
        ("bad-page-state-private", with_flags(PG_private)),
        ("bad-page-state-swapcache", with_flags(PG_swapcache)),
        ("bad-page-state-flags", with_flags(PG_mlocked | PG_lru)),
        ("bad-page-state-mapcount", with_flags(0, _mapcount=1)),
        ("bad-page-state-mapping", with_flags(0, _mapping=lambda k: k.files["f0"])),
        ("bad-page-state-memcg", with_flags(0, _mem_cgroup=lambda k: k.memcgs[0])),
        ("bad-page-state-refcount", with_flags(0, _refcount=1)),
    ],
)
def test_every_bad_page_is_reported_and_withheld(id: str, act: Callable[..., None]) -> None:
    freed = []

    def both(k: Kernel, page: Page) -> None:
        before = list(page.zone.free_pfns)
        act(k, page)
        freed.append(page.zone.free_pfns != before)

    machine, ending = in_kernel(both)
    assert ending is None
    assert [report.id for report in machine.reports] == [id]
    assert freed == [False]


def vma_of(k: Kernel) -> VmAreaStruct:
    return VmAreaStruct(k.processes["A"], 0, 2, 0, k.files["f0"], 0)


def having(flags: int, act: Callable[[Kernel, Page], Any]) -> Callable[[Kernel, Page], Any]:
    def prepared(k: Kernel, page: Page) -> Any:
        page._flags |= flags
        if flags & PG_locked:
            page.lock_owner = k.machine.current
        return act(k, page)

    return prepared


def mapped_again(k: Kernel, page: Page, index: int, of: VmAreaStruct | None) -> None:
    """A mapping more, at address 0, of a page whose first one was at `index` in vma `of`."""
    vma = of or vma_of(k)
    rmap.anon_vma_prepare(vma)
    page._mapping = vma.anon_vma if of else AnonVma(k.machine)
    page._index = index
    page._mapcount = 1
    lock_page(page)
    rmap.page_add_anon_rmap(page, vma, 0)


def one_huge(k: Kernel, page: Page) -> None:
    other = Page(k.machine, 99, k.zones[0])
    other._flags = PG_locked
    other.nr_pages = 512
    memcontrol.mem_cgroup_replace_page(k, page, other)


def left_swap_cache(k: Kernel, page: Page) -> None:
    """It leaves the swap cache just after set_page_dirty has looked where it belongs."""
    page._flags |= PG_swapcache | PG_reclaim
    page._mapping = None

    def leave(task: Task, point: Point, operand: Operand) -> None:
        if point.primitive.word == "flags.reclaim":
            page._flags &= ~PG_swapcache

    k.machine.observe(leave)
    k.machine.interrupt()
    page_writeback.set_page_dirty(k, page)


def taken_off_before_lru_lock(k: Kernel, page: Page) -> None:
    def take_off(task: Task, point: Point, operand: Operand) -> None:
        if point.primitive.word == "lru_lock":
            page._flags &= ~PG_lru

    k.machine.observe(take_off)
    k.machine.interrupt()
    swap.put_page(k, page)


def file_page(k: Kernel, page: Page) -> None:
    page._mapping = k.files["f0"]
    rmap.rmap_walk(k, page, lambda vma, address: 0)


def mapped_delete(k: Kernel, page: Page) -> None:
    page._mapcount = 1
    k.files["f0"]._page_tree[0] = page
    filemap.__delete_from_page_cache(k, k.files["f0"], page)


def mapped_invalidate(k: Kernel, page: Page) -> None:
    page._mapcount, page._mapping = 1, k.files["f1"]
    k.files["f1"]._page_tree[0] = page
    truncate.invalidate_inode_pages2(k, k.files["f1"], fuse.fuse_launder_page)


def wrong_index(k: Kernel, page: Page) -> None:
    page._mapping, page._index = k.files["f0"], 1
    k.files["f0"]._page_tree[0] = page
    filemap.find_lock_entry(k, k.files["f0"], 0)


def wrong_index_fault(k: Kernel, page: Page) -> None:
    vma = vma_of(k)
    vma.vm_file = k.files["f1"]
    page._mapping, page._index = k.files["f1"], 1
    k.files["f1"]._page_tree[0] = page
    filemap.filemap_fault(k, vma, 0, 0)


def anon_without_migration(k: Kernel, page: Page) -> None:
    vma = vma_of(k)
    rmap.anon_vma_prepare(vma)
    page._mapping = vma.anon_vma
    pte = memory.pte_offset(vma.vm_mm, 0)
    pte._value = PteVal(1, page)
    rmap.try_to_unmap_one(k, page, vma, 0, 1)


def dropped_once_too_often(k: Kernel, page: Page) -> None:
    put_page_testzero(page)
    put_page_testzero(page)


def freed_then_referenced(k: Kernel, page: Page) -> None:
    put_page_testzero(page)
    get_page(page)


def isolate_freed(k: Kernel, page: Page) -> None:
    put_page_testzero(page)
    vmscan.isolate_lru_page(k, page)


def swap_cached(k: Kernel, page: Page) -> None:
    page._flags |= PG_locked | PG_swapbacked | PG_uptodate
    page.lock_owner = k.machine.current
    assert swap_state.add_to_swap(k, page)


def deleted_while_written(k: Kernel, page: Page) -> None:
    swap_cached(k, page)
    page._flags |= PG_writeback
    swap_state.delete_from_swap_cache(k, page)


def freed_twice(k: Kernel, page: Page) -> None:
    swap_cached(k, page)
    swapfile.swapcache_free(k, page._private)
    k.swap._swap_map[page._private] = 1
    swapfile.swapcache_free(k, page._private)


def mapping_gone(k: Kernel, page: Page) -> None:
    """Truncated between the two looks at the mapping: what a caller without the page lock risks."""
    mappings = iter((k.files["f1"], None))
    original = page_writeback.util.page_mapping
    page_writeback.util.page_mapping = lambda k, page: next(mappings)  # type: ignore[assignment]
    try:
        page_writeback.__set_page_dirty_nobuffers(k, page)
    finally:
        page_writeback.util.page_mapping = original


def written_twice(k: Kernel, page: Page) -> None:
    """Somebody begins another I/O after the wait: only a broken wait lets that happen."""
    page._mapping = k.files["f1"]
    page._flags |= PG_writeback | PG_dirty
    k.files["f1"]._page_tree[0] = page
    k.files["f1"]._tags["dirty"].add(0)
    original = page_writeback.PageWriteback
    page_writeback.PageWriteback = lambda page: False
    try:
        page_writeback.write_cache_pages(k, k.files["f1"], lambda page: None, sync=True)
    finally:
        page_writeback.PageWriteback = original


def in_tmpfs(flags: int, act: Callable[[Kernel, Page], Any]) -> Callable[[Kernel, Page], Any]:
    def prepared(k: Kernel, page: Page) -> Any:
        page._mapping = k.files["f0"]
        page._flags |= flags | PG_swapbacked
        if flags & PG_locked:
            page.lock_owner = k.machine.current
        return act(k, page)

    return prepared


def undo_writeback(k: Kernel, page: Page) -> None:
    k.files["f0"]._page_tree[0] = page
    shmem.shmem_undo_range(k, k.files["f0"], 0, None)


def writepage_mapped(k: Kernel, page: Page) -> None:
    page._mapcount = 1
    page._refcount = 2
    k.files["f0"]._page_tree[0] = page
    shmem.shmem_writepage(k, k.files["f0"], page)


def without_p10(k: Kernel, page: Page) -> None:
    k.patches = frozenset()
    anon_without_migration(k, page)


def no_anon_vma(k: Kernel, page: Page) -> None:
    """Mapped, anonymous, and its anon_vma has no reference left to take."""
    anon_vma = AnonVma(k.machine)
    anon_vma._refcount = 0
    page._mapping, page._mapcount = anon_vma, 1
    migrate.__unmap_and_move(k, page, page_of(k), False, 2)


def page_of(k: Kernel) -> Page:
    page = page_alloc.alloc_page(k)
    assert page is not None
    return page


def child_left(k: Kernel, page: Page) -> None:
    vma = vma_of(k)
    rmap.anon_vma_prepare(vma)
    assert vma.anon_vma is not None
    vma.anon_vma.degree += 1
    rmap.unlink_anon_vmas(vma)


def moved_back_active(k: Kernel, page: Page) -> None:
    """Isolated from an active list, yet PG_lru again: whoever set it had no right to."""
    page._flags |= PG_lru | PG_active | PG_swapbacked
    page.zone.lists[1].append(page)
    page.zone.lru_size[1] += 1
    original = vmscan.ClearPageLRU
    vmscan.ClearPageLRU = nothing
    try:
        vmscan.shrink_active_list(k, page.zone, 1)
    finally:
        vmscan.ClearPageLRU = original


def charged(flags: int, act: Callable[[Kernel, Page], Any]) -> Callable[[Kernel, Page], Any]:
    def prepared(k: Kernel, page: Page) -> Any:
        page._flags |= flags
        page._mem_cgroup = k.memcgs[0]
        return act(k, page)

    return prepared


def anon_for_file(k: Kernel, page: Page) -> None:
    other = page_alloc.alloc_page(k)
    assert other is not None
    vma = vma_of(k)
    rmap.anon_vma_prepare(vma)
    other._mapping = vma.anon_vma
    for each in (page, other):
        lock_page(each)
    memcontrol.mem_cgroup_replace_page(k, page, other)


def ring_under_writeback(k: Kernel, page: Page) -> None:
    mapping = AddressSpace(k.machine, "ring", "aio", i_size=1)
    mapping.ring = KioCtx(k.processes["A"])
    mapping.ring.pages.append(page)
    aio.aio_migratepage(k, mapping, page, page, 2)


def enqueue_locked(k: Kernel, page: Page) -> None:
    """Somebody locks a page that was free a moment ago."""
    page._flags |= PG_locked
    original = page_alloc.alloc_page
    page_alloc.alloc_page = lambda k: page  # type: ignore[misc, assignment]
    try:
        balloon_compaction.fill_balloon(k)
    finally:
        page_alloc.alloc_page = original


def mapped_free(k: Kernel, page: Page) -> None:
    page._mapcount, page._refcount = 1, 0
    hugetlb.free_huge_page(k, page)


def ksm_moves(flags: int, mapping: bool, kpfn: bool) -> Callable[[Kernel, Page], None]:
    """ksm_migrate_page to a second page: with these flags, the same mapping, the right node."""

    def act(k: Kernel, page: Page) -> None:
        newpage = page_alloc.alloc_page(k)
        assert newpage is not None
        page._mapping = StableNode(k.machine, page if kpfn else newpage)
        newpage._mapping = page._mapping if mapping else None
        page._flags = newpage._flags = flags
        ksm.ksm_migrate_page(newpage, page)

    return act


def huge(flags: int, mapcount: int) -> Callable[[Kernel, Page], None]:
    """Split a huge page that is mapped nowhere, whatever its mapcount says."""

    def act(k: Kernel, page: Page) -> None:
        page._mapping = AnonVma(k.machine)
        page._flags, page._mapcount, page.nr_pages = flags, mapcount, 512
        huge_memory.split_huge_page(k, page)

    return act


BUGS: dict[str, Callable[[Kernel, Page], Any]] = {
    "bug-split-huge-page-anon": huge_memory.split_huge_page,
    "bug-split-huge-page-backed": huge(0, 1),
    "bug-split-huge-page-mapcount": huge(PG_swapbacked, 1),
    "vm-bug-try-to-unmap-huge": lambda k, p: p.__setattr__("nr_pages", 512)
        or rmap.try_to_unmap(k, p, 1),
    "vm-bug-rmap-walk-ksm-unlocked": lambda k, p: p.__setattr__("_mapping", NO_STABLE_NODE)
        or rmap.rmap_walk(k, p, lambda vma, address: 0),
    "vm-bug-ksm-migrate-unlocked": ksm_moves(0, True, True),
    "vm-bug-ksm-migrate-mapping": ksm_moves(PG_locked, False, True),
    "vm-bug-ksm-migrate-kpfn": ksm_moves(PG_locked, True, False),
    "bug-mlock-vma-page-unlocked": mlock.mlock_vma_page,
    "bug-munlock-vma-page-unlocked": mlock.munlock_vma_page,
    "bug-make-migration-entry-unlocked": lambda k, p: migrate.make_migration_entry(p, False),
    "bug-migration-entry-unlocked": lambda k, p: migrate.migration_entry_to_page(PteVal(2, p)),
    "bug-newpage-trylock": having(
        PG_locked, lambda k, p: k.__setattr__("patches", frozenset())
        or migrate.move_to_new_page(k, p, p, False, 2)),
    "vm-bug-move-to-new-page-unlocked": lambda k, p: migrate.move_to_new_page(k, p, p, False, 2),
    "vm-bug-migrate-page-copy-active-unevictable": having(
        PG_active | PG_unevictable, lambda k, p: migrate.migrate_page_copy(k, p, p)),
    "bug-migrate-page-writeback": having(
        PG_writeback, lambda k, p: migrate.migrate_page(k, None, p, p)),
    "bug-unmap-anon-without-swap": without_p10,
    "vm-bug-try-to-munlock": rmap.try_to_munlock,
    "vm-bug-rmap-walk-unlocked": file_page,
    "vm-bug-anon-rmap-unlocked": lambda k, p: rmap.page_add_anon_rmap(p, vma_of(k), 0),
    "vm-bug-putback-fast-lru": having(
        PG_lru | PG_locked, lambda k, p: mlock.__putback_lru_fast_prepare(k, p, [])),
    "vm-bug-putback-fast-locked": lambda k, p: mlock.__putback_lru_fast_prepare(k, p, []),
    "vm-bug-putback-lru-page": having(PG_lru, vmscan.putback_lru_page),
    "vm-bug-isolate-lru-page": isolate_freed,
    "bug-isolate-unevictable": having(PG_unevictable, lambda k, p: vmscan.__isolate_lru_page(p)),
    "vm-bug-putback-inactive-pages": having(
        PG_lru, lambda k, p: vmscan.putback_inactive_pages(k, p.zone, [p])),
    "vm-bug-shrink-page-list-active": having(
        PG_active, lambda k, p: vmscan.shrink_page_list(k, [p], p.zone)),
    "vm-bug-lru-cache-add-lru": having(PG_lru, swap.lru_cache_add),
    "vm-bug-lru-cache-add-active-unevictable": having(
        PG_active | PG_unevictable, swap.lru_cache_add),
    "vm-bug-pagevec-lru-add": having(PG_lru, lambda k, p: swap.__pagevec_lru_add(k, [p])),
    "vm-bug-lru-cache-add-active-or-unevictable": having(
        PG_lru, lambda k, p: swap.lru_cache_add_active_or_unevictable(k, p, vma_of(k))),
    "bug-clear-page-dirty-unlocked": page_writeback.clear_page_dirty_for_io,
    "vm-bug-find-lock-entry": wrong_index,
    "vm-bug-filemap-fault": wrong_index_fault,
    "bug-delete-mapped-page": mapped_delete,
    "bug-invalidate-mapped": mapped_invalidate,
    "vm-bug-unlock-page": lambda k, p: unlock_page(p),
    "vm-bug-get-page": freed_then_referenced,
    "vm-bug-put-page": dropped_once_too_often,
    "bug-list-del": lambda k, p: swap.del_page_from_lru_list(p, p.zone, 0),
    "bug-set-anon-rmap": lambda k, p: rmap.page_add_new_anon_rmap(p, vma_of(k), 0),
    "vm-bug-new-anon-rmap-address": lambda k, p: rmap.page_add_new_anon_rmap(p, vma_of(k), 99),
    "vm-bug-isolate-lru-pages": lambda k, p: vmscan.__isolate_lru_page(p),
    "vm-bug-shrink-page-list-kept": having(
        PG_lru | PG_locked, lambda k, p: vmscan.shrink_page_list(k, [p], p.zone)
    ),
    "bug-remove-mapping-unlocked": lambda k, p: vmscan.__remove_mapping(k, k.files["f0"], p),
    "bug-remove-mapping-other": having(
        PG_locked, lambda k, p: vmscan.__remove_mapping(k, k.files["f0"], p)
    ),
    "vm-bug-unfreeze-refs": lambda k, p: page_unfreeze_refs(p, 1),
    "vm-bug-lru-size": lambda k, p: memcontrol.mem_cgroup_update_lru_size(p, p.zone, 0, -1),
    "vm-bug-try-charge-locked": having(
        PG_swapcache, lambda k, p: memcontrol.mem_cgroup_try_charge(k, p, None)),
    "vm-bug-commit-charge-mapping": lambda k, p: memcontrol.mem_cgroup_commit_charge(p, None),
    "vm-bug-commit-charge-lru": in_tmpfs(
        PG_lru, lambda k, p: memcontrol.mem_cgroup_commit_charge(p, None)),
    "vm-bug-commit-charge-twice": charged(
        0, lambda k, p: memcontrol.commit_charge(p, k.memcgs[0], False)),
    "vm-bug-unlock-page-lru": having(
        PG_lru, lambda k, p: memcontrol.unlock_page_lru(p, True)),
    "vm-bug-uncharge-lru": charged(PG_lru, lambda k, p: memcontrol.mem_cgroup_uncharge(p)),
    "vm-bug-uncharge-count": charged(0, lambda k, p: memcontrol.mem_cgroup_uncharge(p)),
    "vm-bug-replace-page-unlocked": lambda k, p: memcontrol.mem_cgroup_replace_page(k, p, p),
    "vm-bug-migrate-charge-lru": having(
        PG_locked | PG_lru, lambda k, p: k.__setattr__("patches", frozenset())
        or memcontrol.mem_cgroup_replace_page(k, p, p, lrucare=False)),
    "vm-bug-replace-page-anon": anon_for_file,
    "vm-bug-move-account-same": lambda k, p: memcontrol.mem_cgroup_move_account(
        k, p, k.memcgs[0], k.memcgs[0]),
    "vm-bug-move-account-lru": having(PG_lru, lambda k, p: memcontrol.mem_cgroup_move_account(
        k, p, k.memcgs[0], MemCgroup(k.machine, "M1", 2))),
    "bug-try-to-free-buffers": buffer.try_to_free_buffers,
    "bug-try-to-release-page": buffer.try_to_release_page,
    "bug-block-write-full-page": having(
        PG_locked | PG_writeback,
        lambda k, p: buffer.block_write_full_page(k, k.files["f1"], p, True)),
    "bug-no-readpage": lambda k, p: filemap.do_sync_mmap_readahead(
        k, AddressSpace(k.machine, "ring", "aio", i_size=1), 0),
    "bug-aio-migratepage": having(PG_locked | PG_writeback, ring_under_writeback),
    "vm-bug-replace-cache-unlocked": lambda k, p: filemap.replace_page_cache_page(k, p, p),
    "vm-bug-replace-cache-mapping": in_tmpfs(
        PG_locked, lambda k, p: filemap.replace_page_cache_page(k, p, p)),
    "vm-bug-swap-entry-free": freed_twice,
    "vm-bug-reuse-swap-page": swapfile.reuse_swap_page,
    "vm-bug-try-to-free-swap": swapfile.try_to_free_swap,
    "vm-bug-add-to-swap-cache-locked": lambda k, p: swap_state.add_to_swap_cache(k, p, 1),
    "vm-bug-add-to-swap-cache-twice": having(
        PG_locked | PG_swapcache, lambda k, p: swap_state.add_to_swap_cache(k, p, 1)),
    "vm-bug-add-to-swap-cache-backed": having(
        PG_locked, lambda k, p: swap_state.add_to_swap_cache(k, p, 1)),
    "vm-bug-delete-from-swap-cache-locked": swap_state.delete_from_swap_cache,
    "vm-bug-delete-from-swap-cache": having(PG_locked, swap_state.delete_from_swap_cache),
    "vm-bug-delete-from-swap-cache-writeback": deleted_while_written,
    "vm-bug-add-to-swap-locked": swap_state.add_to_swap,
    "vm-bug-add-to-swap-uptodate": having(PG_locked, swap_state.add_to_swap),
    "vm-bug-swap-readpage-locked": page_io.swap_readpage,
    "vm-bug-swap-readpage-uptodate": having(PG_locked | PG_uptodate, page_io.swap_readpage),
    "vm-bug-unmap-anon-without-swap": anon_without_migration,
    "vm-bug-migrate-no-anon-vma": no_anon_vma,
    "bug-unlink-anon-vmas-degree": child_left,
    "bug-page-mkclean-unlocked": rmap.page_mkclean,
    "vm-bug-move-anon-rmap-locked": lambda k, p: rmap.page_move_anon_rmap(p, vma_of(k)),
    "vm-bug-move-anon-rmap-vma": having(
        PG_locked, lambda k, p: rmap.page_move_anon_rmap(p, vma_of(k))),
    "bug-set-page-dirty-mapping": mapping_gone,
    "bug-end-page-writeback": page_writeback.end_page_writeback,
    "bug-write-cache-pages-writeback": written_twice,
    "bug-delete-from-page-cache-unlocked": in_tmpfs(0, filemap.delete_from_page_cache),
    "vm-bug-shmem-add-unlocked": lambda k, p: shmem.shmem_add_to_page_cache(
        k.files["f0"], p, 0, None),
    "vm-bug-shmem-add-backed": having(PG_locked, lambda k, p: shmem.shmem_add_to_page_cache(
        k.files["f0"], p, 0, None)),
    "bug-shmem-delete": in_tmpfs(
        PG_locked, lambda k, p: get_page(p) or shmem.shmem_delete_from_page_cache(k, p, 1)),
    "vm-bug-shmem-undo-range": in_tmpfs(PG_writeback, undo_writeback),
    "bug-shmem-writepage-unlocked": in_tmpfs(
        0, lambda k, p: shmem.shmem_writepage(k, k.files["f0"], p)),
    "bug-shmem-writepage-mapped": in_tmpfs(PG_locked | PG_uptodate, writepage_mapped),
    "vm-bug-move-active-pages": moved_back_active,
    "bug-hugetlb-null-mapping": lambda k, p: migrate.migrate_huge_page_move_mapping(
        k, None, p, p),
    "bug-ksm-null-anon-vma": lambda k, p: ksm.get_anon_vma_for(
        RmapItem(vma_of(k).vm_mm, 0), vma_of(k)),
    "bug-free-huge-page-count": hugetlb.free_huge_page,
    "bug-free-huge-page-mapcount": mapped_free,
    "vm-bug-isolate-huge-page": hugetlb.isolate_huge_page,
    "vm-bug-putback-huge-page": hugetlb.putback_active_hugepage,
    "bug-hugepage-anon-rmap-unlocked": lambda k, p: rmap.hugepage_add_anon_rmap(p, vma_of(k), 0),
    "bug-hugepage-new-anon-rmap-address": lambda k, p: rmap.hugepage_add_new_anon_rmap(
        p, vma_of(k), 99),
    "bug-balloon-newpage-trylock": having(
        PG_locked, lambda k, p: k.__setattr__("patches", frozenset())
        or balloon_compaction.balloon_page_migrate(k, p, p)),
    "vm-bug-balloon-migrate-unlocked": lambda k, p: balloon_compaction.balloon_page_migrate(
        k, p, p),
    "bug-balloon-enqueue-locked": enqueue_locked,
    "bug-check-anon-rmap-root": lambda k, p: mapped_again(k, p, 0, None),
    "bug-check-anon-rmap-index": lambda k, p: mapped_again(k, p, 1, vma_of(k)),
    "vm-bug-replace-page-huge": having(PG_locked, one_huge),
    "bug-page-swap-info": left_swap_cache,
    "vm-bug-populate-range": lambda k, p: gup.populate_vma_page_range(k, vma_of(k), 1, 3),
    "vm-bug-populate-unlocked": lambda k, p: gup.populate_vma_page_range(k, vma_of(k), 0, 1),
    "vm-bug-add-to-swap-cache-exists": having(
        PG_locked | PG_swapbacked, lambda k, p: k.swap.space._page_tree.update({1: p})
        or swap_state.add_to_swap_cache(k, p, 1)),
    "vm-bug-put-page-lru": having(PG_lru, taken_off_before_lru_lock),
    "bug-page-buffers": lambda k, p: buffer.page_buffers(p),
    "bug-balloon-dequeue-lost": lambda k, p: balloon_compaction.balloon_page_dequeue(
        k, balloon_compaction.balloon_device(k)),
}  # fmt: skip
# release_pages tests PG_lru without lru_lock and asserts it with: only another CPU could make the
# two differ, and none may touch a page without references.
UNREACHABLE = {"vm-bug-release-pages-lru"}


@pytest.mark.parametrize("id", sorted(BUGS))
def test_every_bug_and_vm_bug_fires_on_its_condition(id: str) -> None:
    _, ending = in_kernel(BUGS[id])
    assert isinstance(ending, KernelBug)
    assert ending.id == id
    assert ending.where.startswith(("mm/", "fs/", "test_"))


def test_there_is_a_case_for_every_bug_in_the_table() -> None:
    table = {id for id in FINDINGS if id.startswith(("bug-", "vm-bug-"))}
    assert table == set(BUGS) | UNREACHABLE


def test_reports_that_are_not_bugs_fire_too() -> None:
    def dirty(k: Kernel, page: Page) -> None:
        page._mapping = k.files["f1"]
        page_writeback.__set_page_dirty_nobuffers(k, page)

    machine, _ = in_kernel(dirty)
    assert [report.id for report in machine.reports] == ["warn-dirty-not-uptodate"]

    def unbalanced(k: Kernel, page: Page) -> None:
        k.processes["A"].rss[0] = 3
        mmap.exit_mmap(k, k.processes["A"])

    machine, _ = in_kernel(unbalanced)
    assert [report.id for report in machine.reports] == ["bad-rss-counter"]

    def mapped_less(k: Kernel, page: Page) -> None:
        vma = vma_of(k)
        page._mapping, page._refcount = k.files["f0"], 9
        memory.pte_offset(vma.vm_mm, 0)._value = PteVal(1, page)
        memory.unmap_page_range(k, [], vma, 0, 1)

    machine, _ = in_kernel(mapped_less)
    assert [report.id for report in machine.reports] == ["bad-page-map"]

    def no_balloon(k: Kernel, page: Page) -> None:
        balloon_compaction.balloon_page_putback(k, page)
        lock_page(page)
        balloon_compaction.balloon_page_migrate(k, page, page)

    machine, _ = in_kernel(no_balloon)
    assert [report.id for report in machine.reports] == ["warn-balloon-not-movable"] * 2


def test_a_page_lock_under_a_spin_lock_sleeps_in_atomic_context() -> None:
    from kstate.machine import spin_lock_irq

    def act(k: Kernel, page: Page) -> None:
        spin_lock_irq(page.zone.lru_lock)
        lock_page(page)

    machine, _ = in_kernel(act)
    assert [report.id for report in machine.reports] == ["sleeping-in-atomic"]


def test_a_pool_user_that_keeps_a_page_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page handed out and never given back has a reference nobody accounts for."""
    monkeypatch.setattr(pool, "pool_put_new_page", nothing)
    text = LOCKED.replace("pool=0", "pool=1") + "cpu0:\n  A pool_migrate 0.0\ncpu1:\n  B read 0.0\n"
    monkeypatch.setattr(migrate, "move_to_new_page", lambda *_: -16)
    assert "refcount-mismatch" in show(text).ids
