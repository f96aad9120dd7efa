"""KSM: merging, walks, migration, swap, breaking again. Rows X4 are in corpus/races."""

from __future__ import annotations

from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.flags import VM_MERGEABLE
from kstate.patches import CLEAN
from kstate.structs import PRESENT, SWAP, Page, PteVal, StableNode

MERGED = (
    "kfuzz 1\nkernel: {}\nmachine: cpus=2 zones=2 pages=16 pool=1\ninit:\n"
    "  A map 0 anon\n  B map 0 anon\n  A mlock 0.0 +2\n  B mlock 0.0 +2\n{}"
    "  A mergeable 0\n  B mergeable 0\n  A ksm_merge 0.0 B 0.0\n  A drain\n"
)
UNLOCK = "  A munlock 0.0 +2\n  B munlock 0.0 +2\n"


def show(more: str, *, unlock: bool = True, kernel: str = CLEAN) -> Outcome:
    outcome = run(parse(MERGED.format(kernel, UNLOCK if unlock else "") + more))
    assert outcome.findings == (), outcome.findings
    return outcome


def pte(outcome: Outcome, name: str, address: int) -> PteVal:
    return outcome.k.processes[name].ptes[address]._value


def page(outcome: Outcome, name: str, address: int) -> Page:
    value = pte(outcome, name, address)
    assert value.kind == PRESENT
    assert value.page is not None
    return value.page


def merged(outcome: Outcome) -> bool:
    return page(outcome, "A", 0) is page(outcome, "B", 0)


def test_two_pages_that_hold_the_same_become_one() -> None:
    outcome = show("")
    kpage = page(outcome, "A", 0)
    assert merged(outcome)
    assert isinstance(kpage._mapping, StableNode)
    assert kpage._mapping._page is kpage
    assert sorted(item.mm.name for item in kpage._mapping.items) == ["A", "B"]
    assert (kpage._mapcount, kpage._refcount) == (2, 2)
    assert not pte(outcome, "B", 0).soft_dirty
    assert not pte(outcome, "B", 0).write


def test_what_differs_or_may_not_be_merged_stays() -> None:
    assert show("  A write 0.1\n  A ksm_merge 0.1 B 1.0\n").returns[0][-1] == -11
    assert show("  A write 0.1\n  A ksm_merge 0.1 B 0.1\n").returns[0][-1] == -11
    assert show("  A map 1 tmpfs_shared\n  A mergeable 1\n  A read 1.0\n  A ksm_merge 1.0 B 0.1\n"
                ).returns[0][-1] == -2  # fmt: skip
    assert show("  A ksm_merge 2.0 B 0.1\n").returns[0][-1] == -2
    assert show("  A ksm_merge 0.0 D 0.1\n").returns[0][-1] == -3
    assert show("  A mergeable 3\n").returns[0][-1] == -12
    assert show("  A exit\n  B write 0.1\n  B ksm_merge 0.1 A 0.1\n").returns[0][-1] == -11


def test_without_its_fixes_ksm_merges_as_well() -> None:
    for kernel in ("v4.3", "v4.4"):
        outcome = show("  A ksm_merge 0.1 A 0.1\n", kernel=kernel)
        assert page(outcome, "A", 1) is page(outcome, "A", 0) is page(outcome, "B", 0)
        broken = show("  A unmergeable 0\n  B unmergeable 0\n", kernel=kernel)
        assert not merged(broken)


def test_a_third_page_is_found_in_the_stable_tree() -> None:
    outcome = show("  A ksm_merge 0.1 A 0.1\n  B ksm_merge 0.1 B 0.1\n  B ksm_merge 0.1 B 0.1\n")
    assert page(outcome, "A", 1) is page(outcome, "B", 1) is page(outcome, "A", 0)
    assert outcome.returns[0][-1] == 0
    assert outcome.k.ksm is not None
    assert len(outcome.k.ksm.stable_tree) == 1


def test_a_write_breaks_cow_and_munlocks_the_ksm_page() -> None:
    """With one mapping left nobody is asked: A's lock is forgotten until reclaim comes by (2k)."""
    outcome = show("  B write 0.0\n", unlock=False)
    assert not merged(outcome)
    assert "mlocked" in page(outcome, "B", 0).flag_names()
    assert "mlocked" not in page(outcome, "A", 0).flag_names()
    three = show("  A ksm_merge 0.1 A 0.1\n  B write 0.0\n", unlock=False)
    assert "mlocked" in page(three, "A", 0).flag_names()


def test_unmergeable_gives_every_page_back() -> None:
    outcome = show("  B unmergeable 0\n  A unmergeable 0\n")
    assert not merged(outcome)
    assert not isinstance(page(outcome, "B", 0)._mapping, StableNode)


def test_migration_moves_the_node_and_finds_every_pte() -> None:
    for kernel in ("v4.3", "v4.4"):
        outcome = show("  B move 0.0 node1\n  A pool_migrate 0.0\n", kernel=kernel)
        kpage = page(outcome, "A", 0)
        assert outcome.returns[0][-2:] == (1, 0)
        assert merged(outcome)
        assert isinstance(kpage._mapping, StableNode)
        assert kpage._mapping._page is kpage
        assert kpage is outcome.k.pool.members[0]


def test_a_child_is_found_by_the_second_round_of_the_walk() -> None:
    outcome = show("  A fork C\n  C move 0.0 node1\n  C exit\n")
    assert outcome.returns[0][-2:] == (1, 0)
    assert merged(outcome)
    assert page(outcome, "A", 0).zone.node == 1


def test_a_merged_page_goes_to_swap_and_comes_back() -> None:
    out = "  A age node0\n  A swapout node0\n  A swapout node0\n  A swapout node0\n"
    outcome = show(out)
    assert pte(outcome, "A", 0).kind == pte(outcome, "B", 0).kind == SWAP
    back = show(out + "  A read 0.0\n  B read 0.0\n  A drain\n  B exit\n  A read 0.0\n")
    assert page(back, "A", 0)._token == 0
    assert back.k.ksm is not None
    assert back.returns[0][-5:] == (0, 0, 0, 0, 0)


def test_swapped_in_under_another_anon_vma_it_is_copied() -> None:
    out = "  A age node0\n  A swapout node0\n  A swapout node0\n  A swapout node0\n"
    outcome = show(out + "  A read 0.0\n  B write 0.0\n  A write 0.0\n")
    assert not merged(outcome)
    assert page(outcome, "B", 0)._mapping is outcome.k.processes["B"].vmas[0].anon_vma


def test_a_stale_node_is_removed() -> None:
    outcome = show("  A unmap 0\n  B unmap 0\n  A map 1 anon\n  A mlock 1.0 +2\n  A mergeable 1\n"
                   "  A ksm_merge 1.0 A 1.1\n")  # fmt: skip
    assert outcome.k.ksm is not None
    assert page(outcome, "A", 16) is page(outcome, "A", 17)
    assert [node._page for node in outcome.k.ksm.stable_tree] == [page(outcome, "A", 16)]


def test_a_stale_node_ends_the_search_before_v44() -> None:
    """Two nodes, and the first one's page goes. A copy of the second one's comes: fork and a
    populate that breaks COW leave it with what the other holds."""
    two = (
        "  A write 0.1\n  A fork C\n  C mlock 0.0 +2\n  A ksm_merge 0.1 C 0.1\n"
        "  A write 0.0\n  B write 0.0\n  A fork D\n  D mlock 0.0 +2\n  D ksm_merge 0.1 A 0.1\n"
    )
    assert show(two).returns[0][-6:] == (0, 0, 0, 0, 0, 0)
    assert show(two, kernel="v4.4").returns[0][-1] == 0
    assert show(two, kernel="v4.4-fix:ksm-stale-node").returns[0][-1] == -11
    assert show(two, kernel="v4.3").returns[0][-1] == -11


def test_memory_of_a_pool_is_never_merged() -> None:
    outcome = show("  A map 1 hugetlb_private\n  A read 1.0\n  A mergeable 1\n")
    assert outcome.returns[0][-1] == 0
    flags = [vma._vm_flags & VM_MERGEABLE for vma in outcome.k.processes["A"].vmas]
    assert flags == [VM_MERGEABLE, 0]


def test_no_memory_to_break_ksm_is_told_as_eagain() -> None:
    outcome = show("cpu0:\n  A unmergeable 0\nfaults:\n  cpu0 alloc_page #1\n")
    assert outcome.returns[1] == (-11,)


def test_migration_of_a_page_that_ksmd_looks_at_waits_for_nobody() -> None:
    """A reference too many: -EAGAIN, and every entry is put back."""
    text = MERGED.format(CLEAN, UNLOCK) + (
        "cpu0:\n  A move 0.0 node1\ncpu1:\n  B ksm_merge 0.1 A 0.1\nschedule:\n"
        "  cpu1 until mm/ksm.py:find_in_stable_tree memcmp(content) #1\n  cpu0 to end\n"
    )
    outcome = run(parse(text))
    assert outcome.diverged is None
    assert outcome.findings == ()
    assert merged(outcome)
