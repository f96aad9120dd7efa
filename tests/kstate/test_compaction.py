"""Compaction walks page numbers as it goes, and ends where its scanners meet."""

from __future__ import annotations

import pytest
from programs import clean_run

USED_BEFORE = ("A map 1 anon", "A write 1.0", "A unmap 1")


@pytest.mark.parametrize("before", [(), USED_BEFORE])
def test_a_page_that_comes_above_the_scanner_is_found(before: tuple[str, ...]) -> None:
    outcome = clean_run(
        ["A map 0 anon", "A write 0.0", *before, "A drain"],
        cpu0=["A compact node0"],
        cpu1=["A write 0.1", "A drain"],
        schedule=[
            "cpu0 until mm/migrate.py:migrate_page_copy set_bit(flags.uptodate) #1",
            "cpu1 to end",
        ],
        machine="cpus=2 zones=1 pages=16 pool=0",
    )
    assert outcome.returns[1] == (2,)


def test_it_ends_with_the_first_page_that_finds_no_free_one() -> None:
    written = [f"A write {slot}.{page}" for slot in (0, 1) for page in (0, 1)]
    outcome = clean_run(
        ["A map 0 anon", "A map 1 anon", *written, "A drain"],
        cpu0=["A compact node0"],
        machine="cpus=1 zones=1 pages=4 pool=0",
    )
    points = [str(event.point) for event in outcome.k.machine.events(0)]
    assert outcome.returns[1] == (0,)
    assert points.count("mm/compaction.py:isolate_migratepages clear_bit(flags.lru)") == 1
