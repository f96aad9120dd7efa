"""Truncation of Mlocked pages, with e6c509f85455 and as it was before."""

from __future__ import annotations

import pytest

from fuzz.prog import parse
from fuzz.run import run
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
