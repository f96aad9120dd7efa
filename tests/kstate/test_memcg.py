"""Memory groups, and the files that reach what replaces, writes out or releases a page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import clean_run

from fuzz.corpus import races_folder, read_program
from fuzz.explore import EXHAUSTED, REFUTED, explore
from fuzz.prog import parse
from fuzz.run import Outcome, run
from fuzz.schedulers import Default
from kstate import MachineSize, boot, parse_spec
from kstate.flags import (
    EAGAIN,
    MEM_CGROUP_STAT_CACHE,
    MEM_CGROUP_STAT_DIRTY,
    MEM_CGROUP_STAT_FILE_MAPPED,
    MEM_CGROUP_STAT_RSS,
    MIGRATE_ASYNC,
    MIGRATE_SYNC,
    PG_dirty,
    PG_lru,
    PG_private,
    PG_writeback,
)
from kstate.machine import Deadlock, Machine, mutex_lock
from kstate.machine.machine import calling_function
from kstate.mm import memcontrol, migrate, page_alloc, swap, vmscan
from kstate.pageflags import lock_page
from kstate.patches import CLEAN, SpecError
from kstate.structs import Kernel, MemCgroup, Page
from kstate.syscalls import call

HEAD = "kfuzz 1\nkernel: {}\nmachine: cpus=2 zones=2 pages=12 pool=0\n"


def after(*lines: str, kernel: str = CLEAN, faults: str = "") -> Outcome:
    text = HEAD.format(kernel) + "cpu0:\n" + "".join(f"  {line}\n" for line in lines)
    outcome = run(parse(text + (f"faults:\n  {faults}\n" if faults else "")))
    assert outcome.findings == (), outcome.findings
    return outcome


def returns(outcome: Outcome) -> list[int]:
    return [note.about[3] for note in outcome.k.machine.notes if note.kind == "operation-end"]


def stats(memcg: MemCgroup) -> tuple[int, int, int, int, int]:
    return (
        memcg.memory,
        memcg.stat[MEM_CGROUP_STAT_RSS],
        memcg.stat[MEM_CGROUP_STAT_CACHE],
        memcg.stat[MEM_CGROUP_STAT_FILE_MAPPED],
        memcg.stat[MEM_CGROUP_STAT_DIRTY],
    )


def cached(k: Kernel, file: str, index: int) -> Page:
    page = k.files[file]._page_tree[index]
    assert isinstance(page, Page)
    return page


def test_a_process_takes_its_charges_along() -> None:
    """Its anonymous page, and both pages of the file: also the one it does not map."""
    k = after(
        "A map 0 anon",
        "A map 1 ext2_shared",
        "A write 0.0",
        "A write 1.0",
        "A attach memcg1",
    ).k
    assert stats(k.memcgs[0]) == (0, 0, 0, 0, 0)
    assert stats(k.memcgs[1]) == (3, 1, 2, 1, 1)
    assert k.memcgs[1]._moving_account == k.memcgs[0]._moving_account == 0


def test_a_page_belongs_to_who_touched_it_first_and_a_child_to_its_parents_group() -> None:
    k = after(
        "B attach memcg1",
        "B fork C",
        "C map 0 tmpfs_shared",
        "C write 0.0",
        "A map 0 tmpfs_shared",
        "A write 0.0",
    ).k
    assert stats(k.memcgs[0]) == (0, 0, 0, 0, 0)
    assert stats(k.memcgs[1]) == (1, 0, 1, 1, 0)


def test_a_group_that_does_not_exist_is_an_error() -> None:
    assert returns(after("A attach memcg7", "A attach memcg0")) == [-22, 0]


@pytest.mark.parametrize(
    "lines",
    [
        ("A map 0 anon", "A write 0.0"),
        ("A map 0 tmpfs_shared", "A write 0.0"),
        ("A map 0 ext2_private", "A write 0.0"),
        ("A map 0 ext2_shared", "A read 0.0"),
        ("A map 0 ext2_private", "A read 0.0", "A write 0.0"),
        ("A map 0 anon", "A write 0.0", "A drain", "A age node0", "A swapout node0", "A read 0.0"),
        ("A pwrite f1 0",),
        ("A io_setup 0",),
        ("A splice 0",),
    ],
)
def test_a_charge_that_is_refused_leaves_nothing_behind(lines: tuple[str, ...]) -> None:
    """Each call fails in turn; the oracles (charges, references, counters) find nothing. What is
    only read ahead may fail and nobody is told."""
    failed = []
    while True:
        outcome = after(*lines, faults=f"cpu0 try_charge #{len(failed) + 1}")
        if not outcome.k.machine.faults_taken:
            break
        failed.append(-12 in returns(outcome))
    assert any(failed)


def racy_begin(page: Page) -> MemCgroup | None:
    page.machine.current.rcu_depth += 1
    return page.mem_cgroup


def test_without_move_lock_enumeration_finds_a_count_in_the_wrong_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The race that begin_page_stat is for is there to be found: one preemption is enough."""
    program = parse(
        HEAD.format(CLEAN) + "init:\n  A map 0 tmpfs_shared\n  B map 0 tmpfs_shared\n"
        "  B write 0.0\ncpu0:\n  A attach memcg1\ncpu1:\n  B dontneed 0\n"
    )
    assert explore(program, CLEAN, preemptions=1).verdict == EXHAUSTED
    monkeypatch.setattr(memcontrol, "mem_cgroup_begin_page_stat", racy_begin)
    monkeypatch.setattr(memcontrol, "synchronize_rcu", lambda machine: None)
    result = explore(program, CLEAN, preemptions=1, stop_at_first=True)
    assert result.verdict == REFUTED
    assert set(result.findings) == {"memcg-stat-mismatch"}


ABSENT = sorted(path.name for path in races_folder().glob("4-*.prog") if "lrucare" not in path.name)


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4", CLEAN])
@pytest.mark.parametrize("name", ABSENT)
def test_no_schedule_makes_or_loses_a_charge(name: str, kernel: str) -> None:
    program = read_program(races_folder() / name)
    for id in ("memcg-charge-mismatch", "memcg-stat-mismatch", "memcg-lru-size-mismatch"):
        assert explore(program, kernel, preemptions=1, only=id).verdict == EXHAUSTED


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        ("4-charges-splice.prog", "replace_page_cache_page"),
        ("4-charges-shmem.prog", "shmem_replace_page"),
    ],
)
def test_the_files_reach_a_charged_page_on_a_list(
    name: str, caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they say is absent could be there: some schedule replaces a charged page that is on the
    LRU, and some one that is not."""
    seen: set[tuple[bool, bool]] = set()
    original: Callable[..., None] = memcontrol.mem_cgroup_replace_page

    def spy(k: Kernel, oldpage: Page, newpage: Page, lrucare: bool = True) -> None:
        if calling_function(1).endswith(caller):
            seen.add((oldpage._mem_cgroup is not None, oldpage._flags & PG_lru != 0))
        original(k, oldpage, newpage, lrucare)

    monkeypatch.setattr(memcontrol, "mem_cgroup_replace_page", spy)
    explore(read_program(races_folder() / name), "v4.3", preemptions=1)
    assert seen == {(True, False), (True, True)}


def test_swapped_in_pages_are_charged_when_they_are_mapped() -> None:
    swapped = ("A map 0 anon", "A write 0.0", "A drain", "A age node0", "A swapout node0")
    k = after(*swapped).k
    assert stats(k.memcgs[0]) == (0, 0, 0, 0, 0)
    k = after(*swapped, "A willneed 0").k
    assert stats(k.memcgs[0]) == (0, 0, 0, 0, 0)
    k = after(*swapped, "A willneed 0", "A drain", "A read 0.0").k
    assert stats(k.memcgs[0]) == (1, 1, 0, 0, 0)


# ---- buffers, writeout, other files -------------------------------------------------------------


def test_buffers_come_with_pwrite_move_with_the_page_and_go_with_the_file() -> None:
    k = after("A pwrite f1 0").k
    page = cached(k, "f1", 0)
    assert page._flags & PG_private
    assert page._flags & PG_dirty
    assert page.buffers is not None
    assert page.buffers._dirty
    outcome = after("A pwrite f1 0", "A map 0 ext2_shared", "A read 0.0", "A move 0.0 node1")
    moved = cached(outcome.k, "f1", 0)
    assert returns(outcome)[-1] == moved.zone.node == 1
    assert moved._flags & PG_private
    assert moved.buffers is not None
    k = after("A pwrite f1 0", "A truncate f1 0").k
    assert not any(page._refcount for page in k.pages.values())


def test_fsync_cleans_buffers_and_keeps_them_reclaim_and_drop_caches_free_them() -> None:
    k = after("A pwrite f1 0", "A fsync f1").k
    page = cached(k, "f1", 0)
    assert page.buffers is not None
    assert not page.buffers._dirty
    assert not page._flags & (PG_dirty | PG_writeback)
    assert k.files["f1"].backing[0] == page._token
    for give_up in ("A drop_caches", "A shrink node0"):
        lines = ("A pwrite f1 0", "A fsync f1", "A drain", "A shrink node0", give_up)
        assert not isinstance(after(*lines).k.files["f1"]._page_tree.get(0), Page)


def test_fallback_migration_writes_out_what_can_be_written_and_gives_up_on_ramfs() -> None:
    moves = ("A write 0.0", "A move 0.0 node1")
    outcome = after("A map 0 fuse_shared", *moves)
    page = cached(outcome.k, "f3", 0)
    assert returns(outcome)[-1] == 1
    assert outcome.k.files["f3"].backing[0] == page._token
    assert returns(after("A map 0 ramfs_shared", *moves))[-1] == -22
    assert returns(after("A map 0 ramfs_shared", "A read 0.0", moves[1]))[-1] == 1


def test_a_ring_is_one_and_goes_with_its_process() -> None:
    outcome = after("A io_setup 0", "B io_setup 0", "A write 0.0", "A exit", "B io_setup 0")
    assert returns(outcome) == [0, -11, 0, 0, 0]
    outcome = after("A io_setup 0", "A write 0.0", "A move 0.0 node1", "A exit")
    assert "ring" not in outcome.k.files
    assert not any(page._refcount for page in outcome.k.pages.values())


def test_splice_takes_the_page_of_the_other_file_with_its_charge() -> None:
    outcome = after("A pwrite f1 0", "A fsync f1", "A drain", "B attach memcg1", "B splice 0")
    assert 0 not in outcome.k.files["f1"]._page_tree
    page = cached(outcome.k, "f3", 0)
    assert page._mem_cgroup is outcome.k.memcgs[0]
    k = after("B attach memcg1", "B splice 0").k
    assert cached(k, "f3", 0)._mem_cgroup is k.memcgs[1]


def test_pwrite_grows_a_file_up_to_its_limit() -> None:
    for file in ("f0", "f1", "f2", "f3"):
        outcome = after(f"A truncate {file} 0", f"A pwrite {file} 1", f"A pwrite {file} 2")
        assert returns(outcome) == [0, 0, -27]
        assert outcome.k.files[file]._i_size == 2


@pytest.mark.parametrize("mode", [MIGRATE_ASYNC, MIGRATE_SYNC])
def test_a_buffer_that_is_locked_turns_asynchronous_migration_back(mode: int) -> None:
    """Both pages are as they were; synchronous migration waits, here for ever."""
    machine = Machine(Default())
    k = boot(machine, parse_spec(CLEAN).toggles, MachineSize(), ("A",))
    seen: list[int] = []

    def root() -> None:
        call(k, "A", "pwrite", ("f1", 0))
        swap.lru_add_drain_all(k)
        page, newpage = cached(k, "f1", 0), page_alloc.alloc_page(k)
        assert newpage is not None
        assert vmscan.isolate_lru_page(k, page) == 0
        buffer = page.buffers
        assert buffer is not None
        for each in (page, newpage):
            lock_page(each)
        mutex_lock(buffer.lock)
        seen.append(migrate.buffer_migrate_page(k, k.files["f1"], newpage, page, mode))
        seen.append(page._refcount)
        assert page.buffers is buffer
        assert newpage._mapping is None

    ending = machine.run(root)
    if mode == MIGRATE_ASYNC:
        assert ending is None
        assert seen == [EAGAIN, 3]  # cache, buffers, isolation
    else:
        assert isinstance(ending, Deadlock)


@pytest.mark.parametrize("spec", ["v4.4-0610c25daa3e", "v4.3+P11-0610c25daa3e"])
def test_what_needs_the_charge_set_early_cannot_do_without(spec: str) -> None:
    with pytest.raises(SpecError, match="requires 0610c25daa3e"):
        parse_spec(spec)
    with pytest.raises(SpecError, match="mutant:4-lrucare requires P04"):
        parse_spec("v4.3+mutant:4-lrucare")


def test_a_child_is_in_the_group_that_its_parent_is_in_when_fork_ends() -> None:
    outcome = clean_run(
        ["A map 0 anon", "A write 0.0", "A drain"],
        ["A fork C", "C write 0.1"],
        ["A attach memcg1"],
        ["cpu0 until mm/memory.py:copy_one_pte load(pte) #1", "cpu1 until blocked"],
    )
    assert outcome.k.processes["C"]._memcg is outcome.k.memcgs[1]


def test_moving_charges_passes_huge_pages_of_a_pool_over() -> None:
    outcome = clean_run(
        ["A map 0 hugetlb_shared", "B map 0 hugetlb_shared", "B write 0.0"], ["A attach memcg1"]
    )
    functions = [event.point.function for event in outcome.k.machine.events(0)]
    assert "mem_cgroup_move_charge" in functions
    assert "get_mctgt_type" not in functions
