"""Who finds a page by its number: what it was when it was looked at, it need not be any more.

Each of these was a mistake of the model's once: it showed a BUG that the kernel does not have.
"""

from __future__ import annotations

import pytest

from fuzz.explore import EXHAUSTED, explore
from fuzz.prog import parse
from fuzz.run import run
from kstate.patches import CLEAN
from kstate.structs import Page

HEAD = f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=1 pages=8 pool=0\ninit:\n"
THP = HEAD + "  A map 0 thp\n  A write 0.0\n  A drain\n"
ANOTHER = "  A unmap 0\n  A map 0 thp\n  A write 0.0\n"
PROGRAMS = {
    "a huge page that is new": THP + "cpu0:\n  A mf_look 0.0\ncpu1:\n" + ANOTHER,
    "a huge page that mremap moves": THP + "cpu0:\n  A mremap 0 1\ncpu1:\n  A mf_look 0.0\n",
    "a balloon's new page": HEAD.replace("pool=0", "pool=1")
    + "  A inflate\ncpu0:\n  A balloon_migrate\ncpu1:\n  A deflate\n  A inflate\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_up_to_two_preemptions_show_nothing(name: str) -> None:
    found = explore(parse(PROGRAMS[name]), preemptions=2)
    assert found.verdict == EXHAUSTED, found.findings


def test_compaction_looks_again_whether_a_page_is_huge() -> None:
    """What was a small page when compaction looked is a huge one when it has lru_lock."""
    compact = (
        THP + "  A mf_look 0.0\ncpu0:\n  A compact node0\ncpu1:\n" + ANOTHER + "  A drain\n"
        "schedule:\n"
        "  cpu0 until mm/compaction.py:isolate_migratepages spin_lock_irq(lru_lock) #{}\n"
        "  cpu1 to end\n"
    )
    for nth in range(1, 4):
        outcome = run(parse(compact.format(nth)))
        assert outcome.findings == ()
        huge = {p.id for p in outcome.machine.objects if isinstance(p, Page) and p.nr_pages > 1}
        isolated = {
            event.operand
            for event in outcome.machine.events(0)
            if event.point.function == "isolate_migratepages"
            and str(event.point.primitive) == "clear_bit(flags.lru)"
        }
        assert not huge & isolated


def test_reclaim_keeps_a_dirty_page_whose_file_cannot_write_it() -> None:
    """A ramfs page in a page of a tmpfs pool: swap-backed, so reclaim takes it (8bdd63809160)."""
    text = (
        "kfuzz 1\nkernel: v4.3-8bdd63809160\nmachine: cpus=2 zones=2 pages=16 pool=1\ninit:\n"
        "  A map 0 tmpfs_shared\n  B map 0 tmpfs_shared\n  A map 1 ramfs_shared\n  A read 0.0\n"
        "  A read 1.0\n  A drain\ncpu0:\n  B read 0.0\ncpu1:\n  A pool_migrate 0.0\n"
        "  A pool_migrate 1.0\n  A write 1.0\n  A drain\n  A unmap 1\n  A age node1\n"
        "  A swapout node1\n  A age node1\n  A swapout node1\n  A drain\n"
        "schedule:\n  cpu1 until mm/migrate.py:__unmap_and_move test_bit(flags.writeback) #1\n"
        "  cpu0 until blocked\n  cpu1 to end\n"
    )
    outcome = run(parse(text))
    assert outcome.diverged is None
    functions = {event.point.function for event in outcome.machine.events(0)}
    assert "shmem_writepage" not in functions
    (page,) = outcome.k.files["f2"]._page_tree.values()
    assert isinstance(page, Page)
