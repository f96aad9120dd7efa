"""What must never be reported on the clean kernel."""

from __future__ import annotations

import pytest

from fuzz.campaign.driver import Driver, Options
from fuzz.corpus import program_files, races_folder, read_program, shown_on
from fuzz.explore import EXHAUSTED, REFUTED, UNDETERMINED, explore
from fuzz.prog import parse
from fuzz.run import run
from kstate.flags import PG_mlocked
from kstate.patches import CLEAN

FILES = program_files(races_folder())


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_no_schedule_of_a_race_file_shows_anything_on_the_clean_kernel(path) -> None:  # type: ignore[no-untyped-def]
    result = explore(read_program(path), CLEAN, preemptions=2)
    assert result.findings == {}
    assert result.verdict == EXHAUSTED


def test_2f_is_what_the_thread_argued() -> None:
    """With single-page munlock no schedule leaks the page; with pagevec munlock one does."""
    program = read_program(races_folder() / "2f.prog")
    single = explore(
        program, "v4.3+alt:single-page-munlock", preemptions=2, only="mlocked-page-leak"
    )
    pagevec = explore(program, "v4.3", preemptions=2, only="mlocked-page-leak", stop_at_first=True)
    assert single.verdict == EXHAUSTED
    assert pagevec.verdict == REFUTED


def test_a_flag_that_munlock_takes_from_newpage_is_not_lost_by_migration() -> None:
    """A campaign found this: the migration marks newpage for B's sake too, then A's munlock clears
    the flag, and with the page off the LRU nobody looks for B again. Allowed by I5's exceptions."""
    program = parse(
        f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=1 pages=2 pool=1\ninit:\n"
        "  A map 0 tmpfs_shared\n  B map 0 tmpfs_shared\n  A mlock 0.0 +1\n  B mlock 0.0 +1\n"
        "cpu0:\n  A munlock 0.0 +1\ncpu1:\n  A pool_migrate 0.0\nschedule:\n"
        "  cpu1 until mm/migrate.py:__unmap_and_move unlock_page(flags.locked) #2\n  cpu0 to end\n"
    )
    outcome = run(program)
    assert outcome.diverged is None
    assert outcome.findings == ()
    marked = [page for page in outcome.k.pages.values() if page._flags & PG_mlocked]
    assert marked == [], "if this fails the scene has changed, not the claim"


def test_a_reclaim_walk_that_stops_at_a_young_pte_has_passed_nobody_by() -> None:
    """A campaign found this: populate's trylock fails against reclaim (allowed), and reclaim's walk
    ends at A's pte, used again meanwhile, before it comes to B's VM_LOCKED vma."""
    program = parse(
        f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=1 pages=2 pool=0\ninit:\n"
        "  A map 0 ext2_shared\n  B map 0 ext2_shared\n  A write 0.0\n"
        "cpu0:\n  A shrink node0\ncpu1:\n  B mlock 0.0 +1\n  A read 0.0\nschedule:\n"
        "  cpu1 until mm/swap.py:mark_page_accessed set_bit(flags.referenced) #1\n"
        "  cpu0 until blocked\n  cpu1 to end\n"
    )
    outcome = run(program)
    assert outcome.diverged is None
    assert outcome.findings == ()
    assert all(not page._flags & PG_mlocked for page in outcome.k.pages.values())


def test_a_search_that_runs_out_of_budget_proves_nothing() -> None:
    program = read_program(races_folder() / "2b-i-munlock.prog")
    assert explore(program, CLEAN, preemptions=2, runs_max=50).verdict == UNDETERMINED


@pytest.mark.parametrize("kernel", [CLEAN, "v4.4"])
def test_a_short_campaign_finds_nothing_that_no_row_says_is_there(kernel: str) -> None:
    assert shown_on("v4.4")
    assert not shown_on(CLEAN)
    driver = Driver(Options(kernel, "safe", runs_max=6000))
    for _ in driver.events():
        pass
    assert driver.status.counts.keys() <= shown_on(kernel)
