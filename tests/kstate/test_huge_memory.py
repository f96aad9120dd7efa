"""Transparent huge pages as units: counters, COW, split, NUMA migration. Rows 3f and 6b."""

from __future__ import annotations

import pytest

from fuzz.explore import EXHAUSTED, explore
from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.flags import MM_ANONPAGES, NR_ANON_PAGES, NR_MLOCK, PG_lru, PG_referenced
from kstate.patches import CLEAN
from kstate.structs import PRESENT, SWAP, Page

HEAD = "kfuzz 1\nkernel: {}\nmachine: cpus=2 zones=2 pages=16 pool=1\ninit:\n  A map 0 thp\n"


def show(more: str, kernel: str = CLEAN) -> Outcome:
    outcome = run(parse(HEAD.format(kernel) + more))
    assert outcome.findings == (), outcome.findings
    return outcome


def page(outcome: Outcome, name: str = "A", address: int = 0) -> Page:
    value = outcome.k.processes[name].ptes[address]._value
    assert value.kind == PRESENT
    assert value.page is not None
    return value.page


def test_a_huge_page_counts_for_all_its_pages() -> None:
    outcome = show("  A mlock 0.0 +1\n")
    stat = page(outcome).zone.stat
    assert page(outcome).nr_pages == stat[NR_MLOCK] == stat[NR_ANON_PAGES] == 512
    assert outcome.k.processes["A"].rss[MM_ANONPAGES] == 512
    outcome = show("  A mlock 0.0 +1\n  A munlock 0.0 +1\n")
    assert page(outcome).zone.stat[NR_MLOCK] == 0
    outcome = show("  A mlock 0.0 +2\n  A unmap 0\n")
    assert outcome.k.zones[0].stat[NR_MLOCK] == outcome.k.zones[0].stat[NR_ANON_PAGES] == 0


def test_a_huge_page_is_charged_and_what_it_is_split_into_still_is() -> None:
    for more in ("  A read 0.0\n", "  A write 0.0\n  A drain\n  A pool_migrate 0.0\n"):
        outcome = show(more)
        assert page(outcome)._mem_cgroup is outcome.k.memcgs[0]


def test_where_the_node_has_none_left_a_small_page_will_do() -> None:
    outcome = show("  A map 1 thp\n" + "".join(
        f"  A write {slot}.{at}\n" for slot in range(2) for at in range(2)))  # fmt: skip
    pages = [page(outcome, "A", 16 * slot + at) for slot in range(2) for at in range(2)]
    assert [page.nr_pages for page in pages] == [512] * 2 + [1] * 2
    assert {page.zone.node for page in pages} == {0}
    again = show("  A write 0.0\n  A write 0.1\n  A unmap 0\n  A map 0 thp\n  A write 0.0\n")
    assert page(again).nr_pages == 512


def test_cow_after_fork_copies_the_whole() -> None:
    outcome = show("  A write 0.0\n  A fork C\n  C write 0.0\n  A write 0.0\n")
    assert page(outcome) is not page(outcome, "C")
    assert page(outcome).nr_pages == page(outcome, "C").nr_pages == 512
    none_left = show("  A write 0.0\n  A write 0.1\n  B map 1 thp\n  B write 1.0\n  B write 1.1\n"
                     "  A fork C\n  C write 0.0\n")  # fmt: skip
    assert page(none_left).nr_pages == page(none_left, "C").nr_pages == 1  # split, then copied


def test_move_pages_splits_and_reclaim_splits() -> None:
    outcome = show("  A mlock 0.0 +1\n  A move 0.0 node1\n")
    assert outcome.returns[0][-1] == 1
    assert page(outcome).nr_pages == page(outcome).zone.stat[NR_MLOCK] == 1
    outcome = show("  A write 0.0\n  A drain\n  A age node0\n" + "  A swapout node0\n" * 3)
    assert outcome.k.processes["A"].ptes[0]._value.kind == SWAP


def test_ksm_splits_before_it_merges() -> None:
    outcome = show(
        "  A mlock 0.0 +2\n  A munlock 0.0 +2\n  A drain\n  A mergeable 0\n"
        "  A ksm_merge 0.0 A 0.1\n"
    )
    assert page(outcome) is page(outcome, "A", 1)


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4", CLEAN])
def test_numa_migration_moves_the_unit_and_its_flag(kernel: str) -> None:
    outcome = show("  A mlock 0.0 +1\n  A write 0.0\n  A numa 0.0 node1\n  A write 0.0\n", kernel)
    assert outcome.returns[0][-2] == 0
    moved = page(outcome)
    assert moved.zone.node == 1
    assert moved.nr_pages == moved.zone.stat[NR_MLOCK] == moved.zone.stat[NR_ANON_PAGES] == 512
    assert outcome.k.zones[0].stat[NR_MLOCK] == outcome.k.zones[0].stat[NR_ANON_PAGES] == 0


@pytest.mark.parametrize("kernel", ["v4.4", CLEAN])
def test_numa_migration_moves_the_charge_without_the_lru_lock(kernel: str) -> None:
    outcome = show("  A write 0.0\n  A drain\n  A numa 0.0 node1\n", kernel)
    assert outcome.returns[0][-1] == 0
    moved = outcome.k.processes["A"].ptes[0]._value.page
    assert moved is not None
    assert moved._mem_cgroup is outcome.k.memcgs[0]
    functions = {event.point.function for event in outcome.k.machine.events(0)}
    assert "migrate_misplaced_transhuge_page" in functions
    assert "lock_page_lru" not in functions


def test_numa_migration_is_for_huge_pages_that_one_process_maps() -> None:
    assert show("  A numa 0.0 node1\n").returns[0][-1] == -2
    assert show("  A write 0.0\n  A numa 0.0 node0\n").returns[0][-1] == -2
    assert show("  A write 0.0\n  A numa 0.0 node3\n").returns[0][-1] == -19
    assert show("  A write 0.0\n  A drain\n  A fork C\n  A numa 0.0 node1\n").returns[0][-1] == 1
    assert show("  A write 0.0\n  A numa 0.0 node1\n").returns[0][-1] == 1  # not on the LRU yet
    assert show("  A write 0.0\n  A mf_look 0.0\n  A numa 0.0 node1\n").returns[0][-2:] == (0, -2)
    assert show("  A mf_look 0.0\n").returns[0][-1] == -2


RACES = {
    "numa": ("  A mlock 0.0 +1\n", "A numa 0.0 node1", (
        "A munlock 0.0 +1", "A write 0.0", "A unmap 0", "A fork C", "A exit", "A mf_look 0.0",
        "A numa 0.0 node1")),
    "split": ("  A mlock 0.0 +1\n  A fork C\n", "C mf_look 0.0", (
        "A munlock 0.0 +1", "A write 0.0", "A unmap 0", "A fork D", "C exit", "A move 0.0 node1",
        "C mlock 0.0 +1", "A pool_migrate 0.0")),
    "numa against split": ("  A read 0.0\n", "A numa 0.0 node1", (
        "A move 0.0 node0", "A pool_migrate 0.0", "A mf_look 0.0")),
    "mremap against split": ("  A read 0.0\n  A fork C\n", "C mremap 0 1", (
        "C mf_look 0.0", "A mf_look 0.0", "A pool_migrate 0.0")),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(RACES))
def test_nothing_is_found_beside_a_huge_page_on_the_clean_kernel(name: str) -> None:
    """Every schedule with one preemption of each pair."""
    init, one, others = RACES[name]
    for other in others:
        text = HEAD.format(CLEAN) + init + f"cpu0:\n  {one}\ncpu1:\n  {other}\n"
        result = explore(parse(text), CLEAN, preemptions=1)
        assert result.findings == {}, (other, result.findings)
        assert result.verdict == EXHAUSTED


def test_a_split_may_fail_by_itself_against_munmap() -> None:
    """Row 6b without an injected fault: unmapped between the look at its count and the split."""
    text = HEAD.format("v4.3") + (
        "  A write 0.0\n  A drain\ncpu0:\n  A pool_migrate 0.0\ncpu1:\n  A unmap 0\n"
    )
    found = explore(parse(text), "v4.3", preemptions=1, only="pool-leak", stop_at_first=True)
    assert "pool-leak" in found.findings
    assert explore(parse(text), "v4.4", preemptions=1).findings == {}


def test_mlock_of_a_huge_page_touches_the_pmd_not_the_page() -> None:
    outcome = show(
        "  A write 0.0\n  A drain\n  A mprotect 0 ro\n  A clear_refs\n  A mlock 0.0 +1\n"
    )
    assert not page(outcome)._flags & PG_referenced
    value = outcome.k.processes["A"].ptes[0]._value
    assert value.young
    assert value.soft_dirty
    outcome = show(
        "  A write 0.0\n  A drain\n  A age node0\n  A mlock 0.0 +1\n  A munlock 0.0 +1\n"
        "  A drain\ncpu0:\n  A swapout node0\n"
    )
    assert outcome.returns[1] == (0,)  # mlock made it young again


@pytest.mark.parametrize(
    "small",
    ["A write 0.0\n  A mf_look 0.0", "A map 1 thp\n  A write 1.0\n  A write 1.1\n  A write 0.0"],
)
def test_below_a_page_table_no_huge_page_comes_back_until_it_is_unmapped(small: str) -> None:
    def size(*lines: str, name: str = "A") -> int:
        outcome = show("".join(f"  {line}\n" for line in (small, *lines)))
        return page(outcome, name).nr_pages

    free = "A unmap 1"
    assert size() == 1
    assert size(free, "A dontneed 0", "A write 0.0") == 1
    assert size(free, "A fork B", "B dontneed 0", "B write 0.0", name="B") == 1
    assert size(free, "A unmap 0", "A map 0 thp", "A write 0.0") == 512


def test_a_split_makes_every_pte_dirty_and_soft_dirty() -> None:
    outcome = show("  A write 0.0\n  A clear_refs\n  A mf_look 0.0\n")
    value = outcome.k.processes["A"].ptes[0]._value
    assert (value.write, value.dirty, value.soft_dirty) == (False, True, True)


def test_memory_failure_drains_before_it_waits_for_a_page_that_is_on_no_list() -> None:
    head = "kfuzz 1\nkernel: {}\nmachine: cpus=2 zones=1 pages=16 pool=0\ninit:\n  A map 0 anon\n"
    outcome = run(parse(head.format(CLEAN) + "  A write 0.0\n  A mf_look 0.0\n"))
    assert page(outcome)._flags & PG_lru
