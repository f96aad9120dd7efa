"""Lock order, as lockdep sees it: classes of locks, and which is taken while which is held.

A graph over classes, gathered from the logs of any number of runs. No deadlock need happen: that
two tasks could meet the wrong way round is enough. Trylocks wait for nobody, so that they add no
edge for what they take; what they took counts as held. wait_on_page_locked waits, so it adds one.

The documented order is that of the comment at the top of mm/rmap.c, the same in v4.3 and v4.4
(kernel-reference 3), in our words: ORDER. What it does not name is judged by cycles alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fuzz.locklog import PAGE_LOCK, LockLog, Wanted, label_of
from fuzz.oracles.base import Snapshot
from kstate.machine import Machine, Report
from kstate.structs import Kernel

ID = "lock-order"

# Class -> the classes that come next below it. What may be taken under a lock is all below it.
ORDER: dict[str, tuple[str, ...]] = {
    "i_mutex": ("mmap_sem",),
    "mmap_sem": (PAGE_LOCK,),
    PAGE_LOCK: ("i_mmap_rwsem",),
    "i_mmap_rwsem": ("anon_vma_rwsem",),
    "anon_vma_rwsem": ("ptl",),
    "ptl": ("lru_lock", "swap_lock", "private_lock"),  # these three are not ordered by each other
    "private_lock": ("move_lock",),
    "move_lock": ("tree_lock",),
}


@dataclass(frozen=True)
class Nesting:
    """Two locks of one class at once. holder, taker: the functions that may take the first and the
    second. rule: why that is safe. tries: only where the second is taken by a trylock."""

    name: str
    holder: str
    taker: str
    rule: str
    tries: bool = False


NESTINGS: tuple[Nesting, ...] = (
    Nesting(
        "mmap_sem",
        "kernel/fork.py:dup_mmap",
        "kernel/fork.py:dup_mmap",
        "the parent's, then the child's, which nobody else can reach yet",
    ),
    Nesting(
        "ptl",
        "mm/memory.py:copy_page_range",
        "mm/memory.py:copy_page_range",
        "the child's, then the parent's, under the parent's mmap_sem: the latest first",
    ),
    Nesting(
        "ptl",
        "mm/hugetlb.py:copy_hugetlb_page_range",
        "mm/hugetlb.py:copy_hugetlb_page_range",
        "the child's, then the parent's, under the parent's mmap_sem: the latest first",
    ),
    Nesting(
        "ptl",
        "mm/huge_memory.py:page_check_address_pmd",
        "mm/huge_memory.py:page_check_address_pmd",
        "all that map a huge page, the latest first, to split it under the anon_vma's rwsem: the "
        "model's for pmds marked as splitting. A child's is later than its parent's",
    ),
    *(
        Nesting(
            PAGE_LOCK,
            "mm/migrate.py:__unmap_and_move",
            taker,
            "the old page's, then newpage's by trylock: who has both never waited for the second",
            tries=True,
        )
        for taker in ("mm/migrate.py:__unmap_and_move", "mm/migrate.py:move_to_new_page")
    ),
    *(
        Nesting(
            PAGE_LOCK,
            holder,
            "mm/migrate.py:writeout",
            "newpage's, then the old page's again, which writepage dropped: who has newpage's "
            "otherwise waits for no page",
        )
        for holder in ("mm/migrate.py:__unmap_and_move", "mm/migrate.py:move_to_new_page")
    ),
    *(
        Nesting(
            PAGE_LOCK,
            "mm/filemap.py:add_to_page_cache_lru",
            taker,
            "a page new to a FUSE file, then the page of a pipe that is to take its place: who has "
            "a pipe's waits for no page of a FUSE file",
        )
        for taker in ("fs/fuse.py:fuse_splice_read", "fs/fuse.py:page_cache_pipe_buf_steal")
    ),
)


@dataclass(frozen=True)
class Edge:
    """`taken` was taken, or waited for, with `held` held; the first time that was seen.
    *_at: points. *_object: which lock. irqs_off: when `taken` was taken."""

    held: str
    taken: str
    held_at: str
    taken_at: str
    held_object: str
    taken_object: str
    task: str
    irqs_off: bool

    def __str__(self) -> str:
        return (
            f"{self.task} takes {self.taken_object} at {self.taken_at} "
            f"holding {self.held_object} taken at {self.held_at}"
        )


class LockGraph:
    """Which class was taken under which, in all runs it was shown.

    edges: (held, taken) -> first sight."""

    def __init__(self) -> None:
        self.edges: dict[tuple[str, str], Edge] = {}
        self._spin_under_irq: dict[tuple[str, str], Edge] = {}
        self._nested: dict[tuple[str, str, str], Edge] = {}

    def add(self, machine: Machine) -> None:
        """Account for a run."""
        locks = LockLog()
        for event in machine.events():
            wanted = locks.see(event)
            if wanted is not None and wanted.held and wanted.action.waits:
                self._wanted(machine, machine.tasks[event.task].name, wanted)

    def _wanted(self, machine: Machine, task: str, wanted: Wanted) -> None:
        for held in wanted.held:
            key = (held.name, wanted.name)
            same = held.name == wanted.name
            if key in self.edges and not same and not held.irq:
                continue
            edge = Edge(
                held.name,
                wanted.name,
                held.at.name,
                wanted.at.name,
                label_of(machine, held.name, held.object),
                label_of(machine, wanted.name, wanted.object),
                task,
                wanted.irqs_off,
            )
            if same:
                self._nested.setdefault((held.name, edge.held_at, edge.taken_at), edge)
            else:
                self.edges.setdefault(key, edge)
            if held.irq and not wanted.action.irq:
                self._spin_under_irq.setdefault(key, edge)

    def violations(self) -> Iterator[Report]:
        """Each edge that closes a circle with others and with the documented order; each pair of
        one class that no rule allows; each lock taken under an irq lock that is none itself."""
        for edge in self.edges.values():
            against = self._way(edge.taken, edge.held)
            if against:
                yield _report(edge, f"{edge}; against {'; '.join(against)}")
        for edge in self._nested.values():
            if rule_of(edge) is None:
                yield _report(edge, f"{edge}; no rule lets two {edge.held} nest there")
        for edge in self._spin_under_irq.values():
            yield _report(
                edge,
                f"{edge}; interrupts, which take {edge.held} too, are off there, but not "
                f"everywhere {edge.taken} is held",
            )

    def _way(self, start: str, goal: str) -> list[str]:
        """How `start` is known to come before `goal`: by the document, else by what was seen."""
        if goal in below(start):
            return [f"the documented order {documented(start, goal)}"]
        paths: list[tuple[str, list[str]]] = [(start, [])]
        known = {start}
        for at, way in paths:
            steps = {taken: str(edge) for (held, taken), edge in self.edges.items() if held == at}
            steps |= {name: f"the documented order {at} > {name}" for name in ORDER.get(at, ())}
            for name, why in steps.items():
                if name == goal:
                    return [*way, why]
                if name not in known:
                    known.add(name)
                    paths.append((name, [*way, why]))
        return []


def below(name: str) -> list[str]:
    """All classes that the documented order has below one."""
    found: list[str] = []
    for following in ORDER.get(name, ()):
        found += [following, *below(following)]
    return list(dict.fromkeys(found))


def rule_of(edge: Edge) -> Nesting | None:
    """The rule that lets two locks of one class nest as they do here, where the second waits."""
    return nesting_of(edge.taken, edge.held_at, edge.taken_at, tries=False)


def nesting_of(name: str, held_at: str, taken_at: str, *, tries: bool) -> Nesting | None:
    """The rule for two locks of class `name`, the second taken by a trylock or not."""
    functions = (held_at.partition(" ")[0], taken_at.partition(" ")[0])
    for nesting in NESTINGS:
        if nesting.name == name and (nesting.holder, nesting.taker) == functions:
            if tries or not nesting.tries:
                return nesting
    return None


def documented(held: str, taken: str) -> str:
    """`mmap_sem > page lock > ptl`, where the documented order lets `taken` be taken under `held`;
    else an empty string."""
    return " > ".join(_path(held, taken)) if taken in below(held) else ""


def _path(start: str, goal: str) -> list[str]:
    if start == goal:
        return [goal]
    for following in ORDER.get(start, ()):
        if following == goal or goal in below(following):
            return [start, *_path(following, goal)]
    return []


def _report(edge: Edge, text: str) -> Report:
    where = edge.taken_at.partition(" ")[0]
    return Report(ID, text, where, (edge.taken_object, edge.held_object))


class LocksAreTakenInOrder:
    """Locks are taken in one order, the documented one where it says anything.

    Invariant:   kernel-reference 3.
    Not checked: runs that did not end by themselves; PG_writeback, RCU, wait queues and borrowed
                 CPUs, which are waited for but have no holder that took them.
    Cost:        reads the log again: not among the oracles of every run, see ORACLES.
    """

    id = ID

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        graph = LockGraph()
        graph.add(state.k.machine)
        yield from graph.violations()
