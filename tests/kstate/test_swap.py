"""Pagevecs, and what a drain of all of them promises."""

from __future__ import annotations

from programs import clean_run


def test_a_drain_of_all_waits_for_one_that_is_under_way() -> None:
    """A pagevec is empty for others once its pages are on the LRU, not when the drain begins."""
    outcome = clean_run(
        ["A map 0 anon", "A write 0.0"],
        cpu0=["A drain"],
        cpu1=["A move 0.0 node1"],
        schedule=[
            "cpu0 until mm/swap.py:pagevec_lru_move_fn spin_lock_irq(lru_lock) #1",
            "cpu1 until blocked",
            "cpu0 to end",
        ],
    )
    assert outcome.returns[2] == (1,)


def test_willneed_and_a_move_that_is_refused_drain_this_cpu() -> None:
    swapped = ["A map 0 anon", "A write 0.0", "A drain", "A age node0", "A swapout node0"]
    outcome = clean_run([*swapped, "A willneed 0"])
    assert outcome.k.swap.space._page_tree
    assert not outcome.k.lru_add_pvecs[0].pages
    outcome = clean_run(["A map 0 anon", "A write 0.0", "A move 0.0 node3"])
    assert outcome.returns[0][-1] == -19
    assert not outcome.k.lru_add_pvecs[0].pages
