"""Lock order: inversions are caught though nothing hangs; what is in order is not reported; and
mlock_vma_page under the pte lock takes lru_lock alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.campaign.driver import Driver, Found, Options
from fuzz.corpus import program_files, races_folder, read_program
from fuzz.locklog import PAGE_LOCK
from fuzz.locks import Survey, as_they_say, random_runs, survey
from fuzz.oracles.lockorder import NESTINGS, ORDER, LockGraph, below, documented
from fuzz.prog import parse
from fuzz.replay import replay_file
from fuzz.report.diagram import diagram
from fuzz.run import run
from fuzz.schedulers import Default
from kstate.machine import (
    Machine,
    Mutex,
    MutexClass,
    SpinLock,
    SpinLockClass,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_lock,
    spin_lock_irq,
    spin_unlock,
    spin_unlock_irq,
)
from kstate.mm import mlock, vmscan
from kstate.patches import CLEAN
from kstate.structs import (
    ANON_VMA_RWSEM,
    I_MMAP_RWSEM,
    I_MUTEX,
    LRU_LOCK,
    MMAP_SEM,
    PRIVATE_LOCK,
    PTL,
    SWAP_LOCK,
    TREE_LOCK,
    Kernel,
    Page,
)

RACES = [read_program(path) for path in program_files(races_folder())]
RANDOM = 500
A, B, C = MutexClass("a"), MutexClass("b"), MutexClass("c")
SPIN, IRQ = SpinLockClass("spin"), SpinLockClass("irq_lock", irq=True)

MLOCK = f"""kfuzz 1
kernel: {CLEAN}
machine: cpus=2 zones=2 pages=16 pool=0
init:
  A map 0 tmpfs_shared
cpu0:
  A mlock 0.0 +1
"""
READ = "  A read 0.0\ncpu0:"


def nested(*locks: Mutex) -> None:
    for lock in locks:
        mutex_lock(lock)
    for lock in reversed(locks):
        mutex_unlock(lock)


def violations(*tasks: Callable[[Machine, Mutex, Mutex, Mutex], None]) -> list[str]:
    """Tasks one after another, so that nothing can hang."""
    machine = Machine(Default())
    locks = [Mutex(machine, kind, kind.name) for kind in (A, B, C)]

    def root() -> None:
        machine.join(*machine.start(*[lambda task=task: task(machine, *locks) for task in tasks]))

    assert machine.run(root) is None
    graph = LockGraph()
    graph.add(machine)
    return [report.text for report in graph.violations()]


def test_an_inversion_is_caught_though_nothing_hangs() -> None:
    def one(machine: Machine, a: Mutex, b: Mutex, c: Mutex) -> None:
        nested(a, b)

    def other(machine: Machine, a: Mutex, b: Mutex, c: Mutex) -> None:
        nested(b, a)

    assert violations(one, one) == []
    first, second = violations(one, other)
    site = "test_lockorder.py:nested mutex_lock"
    assert first == (
        f"cpu0 takes b at {site}(b) holding a taken at {site}(a); "
        f"against cpu1 takes a at {site}(a) holding b taken at {site}(b)"
    )
    assert second.startswith("cpu1 takes a")


def test_a_circle_of_three_is_caught() -> None:
    def circle(machine: Machine, a: Mutex, b: Mutex, c: Mutex) -> None:
        nested(a, b)
        nested(b, c)
        nested(c, a)

    assert len(violations(circle)) == 3
    assert all("; against " in text for text in violations(circle))


def test_a_trylock_adds_no_edge_for_what_it_takes_but_counts_as_held() -> None:
    def tries(machine: Machine, a: Mutex, b: Mutex, c: Mutex) -> None:
        nested(a, b)
        mutex_lock(b)
        assert mutex_trylock(a)  # waits for nobody: fine
        mutex_unlock(a)
        mutex_unlock(b)

    def then_waits(machine: Machine, a: Mutex, b: Mutex, c: Mutex) -> None:
        tries(machine, a, b, c)
        assert mutex_trylock(b)
        mutex_lock(a)  # does wait, with b held
        mutex_unlock(a)
        mutex_unlock(b)

    assert violations(tries) == []
    assert len(violations(then_waits)) == 2


def test_two_of_one_class_need_a_rule() -> None:
    def two(machine: Machine, a: Mutex, b: Mutex, c: Mutex) -> None:
        nested(a, Mutex(machine, A, "another"))

    (text,) = violations(two)
    assert "a of another" in text
    assert "no rule lets two a nest there" in text


def test_what_interrupts_do_not_exclude_is_not_taken_under_an_irq_lock() -> None:
    def under_irq(machine: Machine, a: Mutex, b: Mutex, c: Mutex) -> None:
        outer, inner = SpinLock(machine, IRQ, "irq_lock"), SpinLock(machine, SPIN, "spin")
        spin_lock_irq(outer)
        spin_lock(inner)
        spin_unlock(inner)
        spin_unlock_irq(outer)

    (text,) = violations(under_irq)
    assert "interrupts, which take irq_lock too" in text


# ---- the kernel ----------------------------------------------------------------------------------


def plant_ptl_under_lru_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """putback_lru_page looks at a page table with lru_lock held, where its caller has none."""
    real = vmscan.putback_lru_page

    def planted(k: Kernel, page: Page) -> None:
        ptl = next(iter(k.processes.values())).page_table_lock
        if ptl.owner is None:
            spin_lock_irq(page.zone.lru_lock)
            spin_lock(ptl)
            spin_unlock(ptl)
            spin_unlock_irq(page.zone.lru_lock)
        real(k, page)

    monkeypatch.setattr(vmscan, "putback_lru_page", planted)


def test_a_planted_inversion_is_a_finding_of_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    program = parse(MLOCK.replace("A mlock 0.0 +1", "A move 0.0 node1").replace("cpu0:", READ))
    (quiet,) = replay_file(program)
    assert quiet.outcome.outcome == "clean"
    plant_ptl_under_lru_lock(monkeypatch)
    (result,) = replay_file(program)
    assert result.outcome.ids == {"lock-order"}
    text = result.outcome.findings[0].text
    assert "takes ptl@A at test_lockorder.py:planted spin_lock(ptl)" in text
    assert "holding lru_lock@node" in text
    assert "against the documented order ptl > lru_lock" in text
    assert "lock-order" not in run(program).ids  # not asked of every run
    assert "// lock-order: cpu0 takes ptl@A" in diagram(program)[0]


def test_a_campaign_asks_its_corpus_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant_ptl_under_lru_lock(monkeypatch)
    gone = frozenset({"use-after-free"})  # what is planted takes A's ptl when A is gone, too
    driver = Driver(Options(CLEAN, 1, runs_max=3000, crashes=tmp_path, ignore=gone))
    found = [event for event in driver.events() if isinstance(event, Found)]
    assert {event.id for event in found} == {"lock-order"}
    for event in found:
        assert event.folder is not None
        (result,) = replay_file(read_program(event.folder / "repro.prog"))
        assert result.expected is True
    ignoring = Driver(Options(CLEAN, 1, runs_max=3000, ignore=gone | {"lock-order"}))
    assert not [event for event in ignoring.events() if isinstance(event, Found)]


def test_the_order_names_the_locks_of_the_model() -> None:
    kinds = (I_MUTEX, MMAP_SEM, I_MMAP_RWSEM, ANON_VMA_RWSEM, PTL, LRU_LOCK, SWAP_LOCK)
    names = {kind.name for kind in (*kinds, PRIVATE_LOCK, TREE_LOCK)} | {PAGE_LOCK}
    documented_ones = {*ORDER, *(name for following in ORDER.values() for name in following)}
    assert documented_ones - names <= {"move_lock"}  # of memcg
    assert names <= documented_ones
    assert documented("mmap_sem", "ptl").split(" > ")[1] == PAGE_LOCK
    assert documented("ptl", "mmap_sem") == ""
    assert not set(below("lru_lock")) | set(below("tree_lock"))
    assert all(name not in below(name) for name in ORDER)


def test_fork_nests_as_the_rules_say() -> None:
    forks = "  A write 0.0\n  A fork C\n  A mlock"
    program = parse(MLOCK.replace("tmpfs_shared", "anon").replace("  A mlock", forks))
    result = survey(as_they_say([program]))
    assert result.violations == []
    nestings = {(t.held, t.order) for t in result.takings if t.held == t.taken}
    fork = ("dup_mmap", "copy_page_range")
    rules = {rule.name: rule.rule for rule in NESTINGS if rule.holder.endswith(fork)}
    assert nestings == {(name, f"known nesting: {rules[name]}") for name in ("mmap_sem", "ptl")}


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4"])
def test_migration_nests_page_locks_by_trylock_alone(kernel: str) -> None:
    program = parse(MLOCK.replace("A mlock 0.0 +1", "A move 0.0 node1").replace("cpu0:", READ))
    result = survey(as_they_say([program]), kernel)
    (nested_locks,) = [t for t in result.takings if t.held == t.taken == PAGE_LOCK]
    assert nested_locks.tries
    assert nested_locks.order.startswith("known nesting: the old page's, then newpage's by trylock")
    assert result.violations == []


@pytest.fixture(scope="module")
def clean() -> Survey:
    return survey((*as_they_say(RACES), *random_runs(RANDOM, 0, CLEAN)), CLEAN)


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4"])
def test_random_programs_and_races_take_locks_in_order(kernel: str) -> None:
    planned = (*as_they_say(RACES), *random_runs(RANDOM, 1, kernel))
    assert survey(planned, kernel).violations == []


def test_the_clean_kernel_takes_locks_in_order_and_nothing_there_is_undocumented(
    clean: Survey,
) -> None:
    assert clean.violations == []
    known = {*ORDER, "lru_lock", "swap_lock", "tree_lock"}
    odd = [
        taking
        for taking in clean.takings
        if {taking.held, taking.taken} <= known and taking.order == "not in the documented order"
    ]
    assert odd == []


def test_mlock_vma_page_under_the_pte_lock_takes_lru_lock_alone() -> None:
    """What was asked of 2/12: is it safe there? lru_lock, with interrupts off, which the documented
    order has below the ptl; nothing that sleeps. In every race file and 500 random programs."""
    result = survey(
        (*as_they_say(RACES), *random_runs(RANDOM, 0, "v4.4")),
        "v4.4",
        under="ptl",
        within="mlock_vma_page",
    )
    assert result.runs == RANDOM + len(RACES)
    assert {taking.taken for taking in result.takings} == {"lru_lock"}
    assert all(taking.irqs_off and not taking.tries for taking in result.takings)
    assert {taking.order for taking in result.takings} == {"in documented order"}
    assert sum(result.takings.values()) >= 20
    assert result.violations == []


def test_without_lru_lock_below_the_ptl_that_answer_would_be_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The survey can say no: were mlock_vma_page to wait for the page lock there, it would."""
    from kstate.pageflags import wait_on_page_locked

    other: list[Page] = []

    def planted(k: Kernel, page: Page) -> None:
        if not other:
            other.append(Page(k.machine, 99, page.zone))
        wait_on_page_locked(other[0])

    monkeypatch.setattr(mlock, "mlock_vma_page", planted)
    result = survey(as_they_say([parse(MLOCK)]), under="ptl")
    waited = {t.order for t in result.takings if t.taken == PAGE_LOCK and not t.tries}
    assert waited == {
        "AGAINST the documented order page lock > i_mmap_rwsem > anon_vma_rwsem > ptl"
    }
    assert result.violations
