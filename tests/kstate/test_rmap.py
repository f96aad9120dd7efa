"""anon_vmas: who drops the last reference drops the root's too, and waits for who has the lock."""

from __future__ import annotations

from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.patches import CLEAN

# B's own anon_vma, of which A's is the root, goes with B, while reclaim looks at pages of both.
PARENT_AND_CHILD = (
    f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=1 pages=16 pool=0\ninit:\n"
    "  A map 0 anon\n  A write 0.0\n  A fork B\n  B write 0.0\n  A drain\n  A age node0\n"
    "cpu0:\n  A swapout node0\ncpu1:\n{}  B exit\nschedule:\n"
)


def show(child: str, schedule: str) -> Outcome:
    outcome = run(parse(PARENT_AND_CHILD.format(child) + schedule))
    assert outcome.diverged is None, outcome.diverged
    assert outcome.findings == (), outcome.findings
    return outcome


def points_of(outcome: Outcome, function: str) -> list[str]:
    return [
        str(event.point.primitive)
        for event in outcome.k.machine.events(0)
        if event.point.function == function
    ]


def test_a_walk_that_drops_the_last_reference_drops_the_roots() -> None:
    """B is gone before page_lock_anon_vma_read has the rwsem: its reference was the last one."""
    outcome = show(
        "  A fork C\n",
        "  cpu0 until mm/rmap.py:page_lock_anon_vma_read rcu_read_unlock(rcu) #1\n"
        "  cpu1 until blocked\n  cpu0 until blocked\n  cpu1 until blocked\n"
        "  cpu0 until mm/rmap.py:page_lock_anon_vma_read down_read(anon_vma_rwsem) #1\n"
        "  cpu1 to end\n",
    )
    assert points_of(outcome, "__put_anon_vma") == ["atomic_dec_and_test(anon_vma.refcount)"]


def test_an_anon_vma_is_freed_after_the_walk_that_found_it() -> None:
    """The walk has the rwsem and no reference: anon_vma_free waits for it."""
    outcome = show(
        "",
        "  cpu1 until mm/rmap.py:put_anon_vma atomic_dec_and_test(anon_vma.refcount) #1\n"
        "  cpu0 until mm/rmap.py:_visit load(index) #1\n"
        "  cpu1 until blocked\n  cpu0 to end\n",
    )
    assert "down_write_granted(anon_vma_rwsem)" in points_of(outcome, "anon_vma_free")


def test_a_vma_that_was_cut_is_the_last_of_its_equals_in_walks() -> None:
    """vma_adjust takes it out and puts it in again, even where it begins as before."""

    def walked(*lines: str) -> list[str]:
        text = f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=1 zones=1 pages=16 pool=0\ninit:\n"
        lines = ("A map 0 tmpfs_shared", "B map 0 tmpfs_shared", *lines)
        outcome = run(parse(text + "".join(f"  {line}\n" for line in lines)))
        vmas = outcome.k.files["f0"].i_mmap
        return [vma.vm_mm.name for vma in vmas if vma.vm_pgoff == 0]

    assert walked() == ["A", "B"]
    assert walked("A mlock 0.0 +1") == ["B", "A"]  # cut from above
    assert walked("A mlock 0.1 +1") == ["B", "A"]  # cut from below: the rest keeps its start
    assert walked("A mlock 0.0 +1", "A munlock 0.0 +1") == ["B", "A"]
