"""Truncation and invalidation; and pwrite, which makes the pages that they drop."""

from __future__ import annotations

import pytest
from programs import clean_run

from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.flags import PG_active, PG_referenced
from kstate.patches import CLEAN
from kstate.structs import Page

MLOCKED = (
    "kfuzz 1\nkernel: {}\nmachine: cpus=2 zones=1 pages=16 pool=0\ninit:\n"
    "  A map 0 tmpfs_shared\n  A mlock 0.0 +1\ncpu0:\n  A truncate f0 0\n  A drain\n"
)


@pytest.mark.parametrize("kernel", ["v4.3-e6c509f85455", "v4.3", CLEAN])
def test_an_mlocked_page_that_is_truncated_is_freed_clean(kernel: str) -> None:
    outcome = run(parse(MLOCKED.format(kernel)))
    assert outcome.findings == ()
    pages = [thing for thing in outcome.k.machine.objects if isinstance(thing, Page)]
    assert not any(page._flags for page in pages)


def test_dropping_caches_leaves_what_is_in_swap() -> None:
    outcome = run(
        parse(
            f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=1 pages=16 pool=0\ninit:\n"
            "  A map 0 tmpfs_shared\n  A write 0.0\n  A unmap 0\n  A map 0 tmpfs_shared\n"
            "  A drain\n  A age node0\n  A swapout node0\n  A drop_caches\n"
        )
    )
    assert outcome.findings == ()
    assert [type(entry) for entry in outcome.k.files["f0"]._page_tree.values()] == [int]


def after(*lines: str) -> Outcome:
    return clean_run([f"A {line}" for line in lines], machine="cpus=1 zones=1 pages=16 pool=0")


RECLAIMED = ("pwrite f1 0", "fsync f1", "drain", "shrink node0", "shrink node0")


@pytest.mark.parametrize(
    ("forgets", "active"),
    [
        ((), True),
        (("drop_caches",), True),  # a file without pages is passed over
        (("pwrite f1 1", "drop_caches"), False),
        (("truncate f1 0", "truncate f1 1"), False),
    ],
)
def test_that_a_page_was_reclaimed_is_known_until_its_file_drops_it(
    forgets: tuple[str, ...], active: bool
) -> None:
    outcome = after("map 0 ext2_shared", *RECLAIMED, *forgets, "read 0.0", "drain")
    page = outcome.k.files["f1"]._page_tree[0]
    assert isinstance(page, Page)
    assert bool(page._flags & PG_active) is active


@pytest.mark.parametrize("file", ["f1", "f2", "f3"])
def test_a_page_that_pwrite_makes_is_referenced_and_the_next_pwrite_activates_it(file: str) -> None:
    def flags(*lines: str) -> int:
        page = after(*lines).k.files[file]._page_tree[0]
        assert isinstance(page, Page)
        return page._flags & (PG_referenced | PG_active)

    assert flags(f"pwrite {file} 0", "drain") == PG_referenced
    assert flags(f"pwrite {file} 0", "drain", f"pwrite {file} 0", "drain") == PG_active


def test_a_pwrite_that_meets_a_shadow_makes_an_active_page() -> None:
    page = after(*RECLAIMED, "pwrite f1 0", "drain").k.files["f1"]._page_tree[0]
    assert isinstance(page, Page)
    assert page._flags & (PG_referenced | PG_active) == PG_referenced | PG_active


def test_a_tmpfs_page_whose_slot_has_gone_meanwhile_is_looked_up_again() -> None:
    """The charge fails: what it was charged for is not the file's any more, so nothing failed."""
    for gone, result in (("B punch f0 0", 0), ("B truncate f0 0", -1007)):
        outcome = clean_run(
            ["A map 0 tmpfs_shared", "A write 0.0", "A unmap 0", "A drain", "A age node0",
             "A swapout node0", "A map 0 tmpfs_shared"],
            ["A read 0.0"],
            [gone],
            ["cpu0 until mm/shmem.py:_swap_in wait_on_page_writeback(flags.writeback) #1",
             "cpu1 to end"],
            ["cpu0 try_charge #1"],
        )  # fmt: skip
        assert outcome.returns[1] == (result,)


def test_ftruncate_to_the_size_it_has_leaves_a_disk_file_alone() -> None:
    outcome = clean_run(
        ["A map 0 ext2_shared"],
        ["A read 0.1"],
        ["B truncate f1 0", "B truncate f1 0"],
        ["cpu0 until mm/filemap.py:find_get_page rcu_read_lock(rcu) #1",
         "cpu1 until fs/ext2.py:ext2_setsize mutex_lock(i_mutex) #2",
         "cpu0 to end"],
    )  # fmt: skip
    assert 1 in outcome.k.files["f1"]._page_tree  # beyond the end; nothing takes it away


def test_fsync_passes_over_a_page_that_is_reclaimed_while_it_looks_for_it() -> None:
    """The tag was seen, then the page was written and reclaimed: a shadow stands there."""
    clean_run(
        ["A pwrite f1 0", "A drain", "A age node0"],
        ["A fsync f1"],
        ["B fsync f1", "B shrink node0", "B shrink node0"],
        ["cpu0 through mm/filemap.py:find_get_entries radix_tree_tagged(page_tree) #1",
         "cpu1 to end"],
    )  # fmt: skip
