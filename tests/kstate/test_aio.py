"""An aio ring: nobody locks it in memory, nobody migrates it before it is complete."""

from __future__ import annotations

from programs import clean_run

from kstate.flags import VM_LOCKED, PG_mlocked, PG_referenced, PG_unevictable
from kstate.structs import Page


def test_mlock_of_a_ring_faults_it_in_and_marks_nothing() -> None:
    """VM_DONTEXPAND is of VM_SPECIAL: mlock_fixup leaves such a vma as it is."""
    outcome = clean_run(["A io_setup 0", "A mlock 0.0 +2", "A drain", "A dontneed 0"])
    assert outcome.returns[0] == (0, 0, 0, 0)
    mm = outcome.k.processes["A"]
    assert mm.locked_vm == 0
    assert not any(vma._vm_flags & VM_LOCKED for vma in mm.vmas)
    for page in outcome.k.files["ring"]._page_tree.values():
        assert isinstance(page, Page)
        assert page._flags & (PG_mlocked | PG_unevictable | PG_referenced) == PG_referenced


def test_a_ring_that_is_being_set_up_is_not_migrated() -> None:
    outcome = clean_run(
        cpu0=["A io_setup 0"],
        cpu1=["B drain", "B compact node0"],
        schedule=["cpu0 until fs/aio.py:io_setup down_write(mmap_sem) #1", "cpu1 to end"],
        machine="cpus=2 zones=1 pages=16 pool=0",
    )
    assert outcome.returns[2] == (0, 0)


def test_dropping_caches_knows_nothing_of_a_ring() -> None:
    lines = ["A io_setup 0", "A drain", "A read 0.0", "A unmap 0", "A drain"]
    flags = [
        {page.pfn: page._flags for page in outcome.k.files["ring"]._page_tree.values()}  # type: ignore[union-attr]
        for outcome in (clean_run(lines), clean_run([*lines, "A drop_caches", "A drain"]))
    ]
    assert flags[0] == flags[1]
