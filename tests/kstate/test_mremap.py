"""mremap moves ptes as they are: the page, its lock on the memory, and a soft-dirty mark."""

from __future__ import annotations

from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.flags import VM_LOCKED, VM_MERGEABLE, PG_mlocked
from kstate.patches import CLEAN
from kstate.structs import AnonVma
from kstate.syscalls import slot_start

HEAD = f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=2 pages=16 pool=0\ninit:\n"


def after(*operations: str) -> Outcome:
    outcome = run(parse(HEAD + "".join(f"  {operation}\n" for operation in operations)))
    assert outcome.outcome == "clean", outcome.findings
    return outcome


def test_a_locked_page_moves_with_its_pte() -> None:
    outcome = after("A map 0 anon", "A write 0.0", "A mlock 0.0 +2", "A clear_refs", "A mremap 0 1")
    assert outcome.returns[0][-1] == 0
    mm = outcome.k.processes["A"]
    assert [vma.vm_start for vma in mm.vmas] == [slot_start(1)]
    assert mm.vmas[0]._vm_flags & VM_LOCKED
    assert mm.locked_vm == 2
    value = mm.ptes[slot_start(1)]._value
    assert value.page is not None
    assert value.page._flags & PG_mlocked
    assert value.soft_dirty
    assert mm.ptes[slot_start(0)]._value.page is None


def test_the_moved_page_is_found_by_rmap_walks() -> None:
    outcome = after("A map 0 anon", "A write 0.0", "A mremap 0 1", "A drain", "A move 1.0 node1")
    assert outcome.returns[0][-1] == 1


def test_ksm_pages_are_taken_apart_before_they_are_moved() -> None:
    """rmap walks of a KSM page go to the places where it was merged: it must not move."""
    outcome = after(
        "A map 0 anon", "A mlock 0.0 +2", "A mergeable 0",
        "B map 0 anon", "B mlock 0.0 +2", "B mergeable 0",
        "A ksm_merge 0.0 B 0.0", "B mremap 0 1", "A munlock 0.0 +2",
    )  # fmt: skip
    moved = outcome.k.processes["B"]
    page = moved.ptes[slot_start(1)]._value.page
    assert page is not None
    assert isinstance(page._mapping, AnonVma)
    assert page is not outcome.k.processes["A"].ptes[slot_start(0)]._value.page
    assert moved.vmas[0]._vm_flags & VM_MERGEABLE


def test_what_cannot_be_moved_says_so() -> None:
    """Half a slot mlocked makes two vmas of it; nothing at all is mapped in slot 2."""
    outcome = after(
        "A map 0 anon", "A mlock 0.0 +1", "A mremap 0 1", "A mremap 2 1", "A mremap 0 0"
    )
    assert outcome.returns[0][-3:] == (-14, -14, -22)
    assert after("A map 0 hugetlb_private", "A mremap 0 1").returns[0][-1] == -22
