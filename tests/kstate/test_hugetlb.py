"""Huge pages: faults, fork and COW, migration; and no short schedule loses one."""

from __future__ import annotations

import pytest

from fuzz.explore import EXHAUSTED, explore
from fuzz.prog import parse
from fuzz.prog.prog import Program
from fuzz.run import Outcome, run
from kstate.flags import EINVAL, ENOENT, SIGBUS, PG_dirty, PG_huge_active
from kstate.patches import CLEAN
from kstate.structs import Page

KERNELS = ("v4.3", "v4.3+P07", "v4.3+P07+P08", "v4.3+P11", "v4.4", CLEAN)
KINDS = ("hugetlb_shared", "hugetlb_private")


def program(init: str, *tasks: str) -> Program:
    """Operations are separated by semicolons; one string is one task."""
    lines = ["kfuzz 1", f"kernel: {CLEAN}", "machine: cpus=2 zones=2 pages=16 pool=0"]
    for number, ops in enumerate((init, *tasks)):
        lines.append(f"cpu{number - 1}:" if number else "init:")
        lines += [f"  {op.strip()}" for op in ops.split(";")]
    return parse("\n".join(lines) + "\n")


def page_at(outcome: Outcome, process: str, address: int) -> Page:
    page = outcome.k.processes[process].ptes[address]._value.page
    assert page is not None
    return page


def free_huge_pages(outcome: Outcome) -> int:
    assert outcome.k.hugetlb is not None
    return sum(map(len, outcome.k.hugetlb.free))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_huge_page_moves_and_keeps_what_is_in_it(kernel: str, kind: str) -> None:
    text = program(
        f"A map 0 {kind}; A write 0.0; A read 0.1", "A huge_migrate 0.0; A move 0.1 node1"
    )
    outcome = run(text, kernel)
    assert outcome.outcome == "clean"
    assert outcome.returns[1] == (0, 1)
    assert outcome.k.hugetlb is not None
    page = page_at(outcome, "A", 0)
    assert page is outcome.k.hugetlb.pool.members[0]
    assert page._token == 1
    assert page._flags & PG_huge_active
    assert page_at(outcome, "A", 1).zone.node == 1
    assert free_huge_pages(outcome) == 3
    assert outcome.k.processes["A"].rss == [0, 0, 0]


def test_the_old_page_stays_dirty_in_its_pool() -> None:
    outcome = run(program("A map 0 hugetlb_shared; A write 0.0", "A huge_migrate 0.0"), "v4.4")
    assert outcome.k.hugetlb is not None
    old = outcome.k.hugetlb.free[0][-1]
    assert old._flags & PG_dirty
    assert page_at(outcome, "A", 0)._flags & PG_dirty


def test_a_private_huge_page_is_copied_on_write_after_fork() -> None:
    text = program(
        "A map 0 hugetlb_private; A write 0.0; A fork B; B write 0.0; A write 0.0", "A read 0.0"
    )
    outcome = run(text)
    assert outcome.outcome == "clean"
    assert page_at(outcome, "A", 0) is not page_at(outcome, "B", 0)
    assert (page_at(outcome, "A", 0)._token, page_at(outcome, "B", 0)._token) == (3, 2)
    assert free_huge_pages(outcome) == 2


def test_two_processes_share_a_page_of_the_file_and_it_stays_when_they_are_gone() -> None:
    text = program("A map 0 hugetlb_shared; B map 1 hugetlb_shared; A write 0.0; B read 1.0",
                   "A unmap 0; A exit; B exit")  # fmt: skip
    outcome = run(text)
    assert outcome.outcome == "clean"
    assert free_huge_pages(outcome) == 3


def test_what_the_kernel_does_not_do_to_huge_mappings() -> None:
    """mlock populates and locks nothing; no MADV_DONTNEED; small-page compaction passes them by."""
    text = program(
        "A map 0 hugetlb_private",
        "A mlock 0.0 +2; A dontneed 0; A compact node0; A pool_migrate 0.0; A huge_migrate 1.0;"
        "A munlock 0.0 +2; A clear_refs; A reclaim; A mprotect 0 ro; A write 0.1",
    )
    outcome = run(text)
    assert outcome.outcome == "clean"
    assert outcome.returns[1][:5] == (0, EINVAL, 0, -16, ENOENT)
    assert not outcome.k.processes["A"].vmas[0].locked
    assert outcome.k.processes["A"].locked_vm == 0
    assert free_huge_pages(outcome) == 2


def test_a_fault_that_finds_no_huge_page_left_gets_sigbus() -> None:
    text = program(
        "A map 0 hugetlb_private; A mlock 0.0 +2; B map 0 hugetlb_private; B mlock 0.0 +2",
        "A map 1 hugetlb_private; A read 1.0; A exit; B exit",
    )
    outcome = run(text)
    assert outcome.outcome == "clean"
    assert outcome.returns[1] == (0, SIGBUS, 0, 0)
    assert free_huge_pages(outcome) == 4


RIVALS = (
    "A write 0.0",
    "A write 0.1",
    "A unmap 0",
    "A exit",
    "A fork B",
    "A huge_migrate 0.0",
    "A move 0.0 node1",
    "B map 0 hugetlb_shared; B write 0.0",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rival", RIVALS)
def test_no_schedule_of_a_move_and_a_rival_loses_a_page(rival: str, kind: str) -> None:
    race = program(f"A map 0 {kind}; A write 0.0", "A huge_migrate 0.0", rival)
    result = explore(race, CLEAN, preemptions=1)
    assert result.findings == {}
    assert result.verdict == EXHAUSTED


def test_without_p06_put_new_page_of_huge_pages_is_called_as_with_it() -> None:
    for rival in RIVALS:
        race = program("A map 0 hugetlb_private; A write 0.0", "A huge_migrate 0.0", rival)
        for kernel in ("v4.3", "v4.3+P06"):
            assert explore(race, kernel, preemptions=1, only="pool-leak").verdict == EXHAUSTED
