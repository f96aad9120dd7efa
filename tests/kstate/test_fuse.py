"""FUSE: writes through, forced invalidation, vmas with a close of their own."""

from __future__ import annotations

from programs import clean_run

from kstate.flags import PG_dirty, PG_uptodate, PG_writeback
from kstate.structs import NONE, Page

WRITTEN = ("A map 0 fuse_shared", "A pwrite f3 0", "A write 0.0")


def test_a_file_of_another_size_drops_every_page_and_loses_no_write() -> None:
    file = clean_run(WRITTEN).k.files["f3"]
    page = file._page_tree[0]
    assert isinstance(page, Page)
    assert page._flags & PG_dirty
    for size, left in ((1, 1), (0, 0)):
        k = clean_run([*WRITTEN, f"A truncate f3 {size}"]).k
        assert not k.files["f3"]._page_tree
        assert len(k.files["f3"].backing) == left
        assert k.processes["A"].ptes[0]._value.kind == NONE
    assert clean_run([*WRITTEN, "A truncate f3 2"]).k.files["f3"]._page_tree  # the size it has


def test_what_pwrite_writes_is_sent_to_the_server_at_once() -> None:
    file = clean_run(["A pwrite f3 0"]).k.files["f3"]
    page = file._page_tree[0]
    assert isinstance(page, Page)
    assert page._flags & (PG_dirty | PG_uptodate) == PG_uptodate
    assert file.backing == {0: page._token}


def test_the_end_of_a_mapping_writes_what_was_written_through_it() -> None:
    for end in ("A unmap 0", "A exit", "A mremap 0 1", "A map 0 anon"):
        file = clean_run(["A map 0 fuse_shared", "A write 0.0", "A write 0.1", end]).k.files["f3"]
        assert file.backing.keys() == {0, 1}, end
        for page in file._page_tree.values():
            assert isinstance(page, Page)
            assert not page._flags & (PG_dirty | PG_writeback), end


def test_a_vma_with_a_close_does_not_merge() -> None:
    for kind, vmas in (("fuse_shared", 2), ("ramfs_shared", 1)):
        outcome = clean_run([f"A map 0 {kind}", "A mlock 0.0 +1", "A munlock 0.0 +1"])
        assert len(outcome.k.processes["A"].vmas) == vmas


def test_fsync_lets_go_of_pages_that_are_still_under_writeback() -> None:
    outcome = clean_run(
        ["A map 0 fuse_shared", "A write 0.0", "A write 0.1"],
        cpu0=["A fsync f3"],
        cpu1=["B pwrite f3 0"],
        schedule=["cpu0 until fs/fuse.py:fill load(index) #2", "cpu1 until blocked"],
    )
    functions = [event.point.function for event in outcome.k.machine.events(0)]
    ends = functions.index("end_page_writeback")
    unlocked = [
        event.point.function == "fill" and "unlock" in event.point.primitive.name
        for event in outcome.k.machine.events(0)
    ]
    assert sum(unlocked[:ends]) == 2


def test_a_write_fault_that_backs_out_leaves_the_page_clean() -> None:
    """page_mkwrite marks nothing: the fault does, once the pte is set."""
    outcome = clean_run(
        ["A map 0 fuse_shared", "A read 0.0"],
        cpu0=["A write 0.0"],
        cpu1=["A dontneed 0"],
        schedule=["cpu0 until mm/memory.py:wp_page_shared spin_lock(ptl) #1", "cpu1 to end"],
    )
    dirtied = [
        event.point.function
        for event in outcome.k.machine.events(0)
        if event.point.primitive.word == "flags.dirty"
        and event.point.primitive.name.startswith("test_and_set")
    ]
    assert len(dirtied) == 1  # by the fault that was tried again
