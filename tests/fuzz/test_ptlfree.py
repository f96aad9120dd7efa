"""What is wrong only for a while is seen when a ptl is let go, by those who ask for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuzz.oracles import SLOW_IDS, and_slow
from fuzz.oracles.lockorder import ID as LOCK_ORDER
from fuzz.prog import parse
from fuzz.replay import replay_file
from fuzz.report.diagram import diagram
from fuzz.run import run
from fuzz.sample import sample
from kstate.machine import KernelBug, SpinLock, spin_unlock
from kstate.mm import memory, rmap
from kstate.patches import CLEAN
from kstate.structs import Kernel, MmStruct, Page
from tests.fuzz.test_cli import LEAK, kfuzz, refused

HEAD = f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=2 pages=16 pool=0\ninit:\n"
UNMAP = HEAD + (
    "  A map 0 tmpfs_shared\n  B map 0 tmpfs_shared\n  A read 0.0\ncpu0:\n  A unmap 0\n"
)
FORK = HEAD + "  A map 0 anon\n  A write 0.0\n  A drain\ncpu0:\n  A fork B\n"
# B lets go of its ptl while A's pte is empty and its page still counts as mapped by it.
BESIDE = UNMAP + (
    "cpu1:\n  B read 0.0\nschedule:\n"
    "  cpu0 through mm/memory.py:unmap_page_range ptep_get_and_clear(pte) #1\n"
    "  cpu1 to end\n"
)


def mapcount_late(patch: pytest.MonkeyPatch) -> None:
    """Pages stop counting as mapped when the TLB is flushed, without the ptl (as since v6.2)."""
    remove, finish = rmap.page_remove_rmap, memory.tlb_finish_mmu

    def flush(k: Kernel, gathered: list[Page]) -> None:
        for page in gathered:
            remove(k, page)
        finish(k, gathered)

    patch.setattr(rmap, "page_remove_rmap", lambda k, page: None)
    patch.setattr(memory, "tlb_finish_mmu", flush)


def reference_late(patch: pytest.MonkeyPatch) -> None:
    """fork takes a page's reference for the child when it has unlocked."""
    take, late = memory.get_page, list[Page]()

    def unlock(lock: SpinLock) -> None:
        spin_unlock(lock)
        while late and lock.label() == "ptl@B":
            take(late.pop())

    patch.setattr(memory, "get_page", late.append)
    patch.setattr(memory, "spin_unlock", unlock)


def rss_late(patch: pytest.MonkeyPatch) -> None:
    """A fault counts its page when it has unlocked."""

    def unlock(lock: SpinLock) -> None:
        mm = next(
            mm
            for mm in lock.machine.objects
            if isinstance(mm, MmStruct) and mm.page_table_lock is lock
        )
        mm.rss[0] -= 1
        spin_unlock(lock)
        mm.rss[0] += 1

    patch.setattr(memory, "spin_unlock", unlock)


PLANTED: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "mapcount-wrong-for-a-while": (UNMAP, mapcount_late),
    "mapped-without-reference": (FORK, reference_late),
    "rss-wrong-for-a-while": (UNMAP, rss_late),
}


def test_there_is_a_planted_bug_for_every_slow_oracle() -> None:
    assert set(PLANTED) == SLOW_IDS - {LOCK_ORDER}  # which has a file of its own


@pytest.mark.parametrize("id", sorted(PLANTED))
def test_a_planted_bug_that_mends_itself_is_seen_by_replay(
    id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, plant = PLANTED[id]
    program = parse(text)
    (quiet,) = replay_file(program)
    assert quiet.outcome.outcome == "clean"
    plant(monkeypatch)
    (result,) = replay_file(program)
    assert result.outcome.ids == {id}
    assert "is about to unlock ptl@" in result.outcome.findings[0].text
    assert run(program).outcome == "clean"  # at the end nothing is wrong
    assert f"// {id}: " in diagram(program)[0]


def test_what_was_seen_is_told_although_the_run_ends_in_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bug(k: Kernel, gathered: list[Page]) -> None:
        raise KernelBug("bug-planted", "kernel BUG: planted", "test:bug")

    monkeypatch.setattr(rmap, "page_remove_rmap", lambda k, page: None)
    monkeypatch.setattr(memory, "tlb_finish_mmu", bug)
    outcome = run(parse(UNMAP), oracles=and_slow(SLOW_IDS))
    assert outcome.ids == {"bug-planted", "mapcount-wrong-for-a-while"}


def test_a_mapping_in_the_middle_of_a_change_is_not_judged() -> None:
    (result,) = replay_file(parse(BESIDE))
    assert result.outcome.diverged is None
    assert result.outcome.outcome == "clean"


def test_those_who_observe_do_not_change_the_run() -> None:
    program = parse(BESIDE)
    asked = run(program, oracles=and_slow(SLOW_IDS))
    assert asked.trace_hash == run(program).trace_hash


def test_a_sample_asks_of_each_run_what_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    mapcount_late(monkeypatch)
    program = parse(UNMAP)
    id = "mapcount-wrong-for-a-while"
    assert sample(program, None, "pos", 3, 0).findings == {}
    assert sample(program, None, "pos", 3, 0, frozenset({id})).findings == {id: 3}


@pytest.mark.parametrize("id", sorted(SLOW_IDS))
def test_a_search_does_not_claim_what_it_does_not_ask(id: str) -> None:
    refused(
        kfuzz("explore", LEAK, "--only", id, "--preemptions", 1), id, f"kfuzz sample --only {id}"
    )
