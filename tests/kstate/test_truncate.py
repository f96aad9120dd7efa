"""Truncation and invalidation; and pwrite, which makes the pages that they drop."""

from __future__ import annotations

import pytest

from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.flags import PG_active, PG_dirty, PG_referenced, PG_uptodate
from kstate.patches import CLEAN
from kstate.structs import NONE, Page

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


def after(*lines: str, zones: int = 1) -> Outcome:
    text = f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=1 zones={zones} pages=16 pool=0\ninit:\n"
    outcome = run(parse(text + "".join(f"  A {line}\n" for line in lines)))
    assert outcome.findings == (), outcome.findings
    return outcome


RECLAIMED = ("pwrite f1 0", "fsync f1", "drain", "shrink node0", "shrink node0")


@pytest.mark.parametrize(
    ("forgets", "active"),
    [((), True), (("drop_caches",), False), (("truncate f1 0", "truncate f1 1"), False)],
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


def test_a_fuse_file_of_another_size_drops_every_page_and_loses_no_write() -> None:
    written = ("map 0 fuse_shared", "pwrite f3 0", "write 0.0")
    file = after(*written).k.files["f3"]
    page = file._page_tree[0]
    assert isinstance(page, Page)
    assert page._flags & PG_dirty
    for size, left in ((1, 1), (0, 0)):
        k = after(*written, f"truncate f3 {size}").k
        assert not k.files["f3"]._page_tree
        assert len(k.files["f3"].backing) == left
        assert k.processes["A"].ptes[0]._value.kind == NONE
    assert after(*written, "truncate f3 2").k.files["f3"]._page_tree  # the size it has


def test_fuse_sends_what_pwrite_writes_to_its_server_at_once() -> None:
    file = after("pwrite f3 0").k.files["f3"]
    page = file._page_tree[0]
    assert isinstance(page, Page)
    assert page._flags & (PG_dirty | PG_uptodate) == PG_uptodate
    assert file.backing == {0: page._token}
