"""Happens-before: vector clocks over the log of a run.

What orders two steps of different tasks here:
- spawn before the first step of what it started; the last step of a task before any join that
  ends after it;
- dropping a lock before taking it again: spin locks, mutexes, the page lock. Of an rwsem, a writer
  is ordered after all before it; a reader after writers only. Waiting for a page lock counts as
  taking it. A trylock that fails orders nothing;
- synchronize_rcu: after every read section that had begun, before every one that begins later;
- a wait queue: joining it and waking it both take its lock; the end of writeback before who waited
  for it;
- borrowed CPUs: work done on another task's CPU comes after what that task did, before what it
  does next (schedule_work_on and flush_work; a CPU's own words cannot race with it);
- an atomic operation that returns a value (test_and_set_bit, put_page_testzero, xchg of a pte) is
  a full barrier in Linux: those on one word are ordered after each other, as ktsan has it. The
  conditional ones only where they succeed. Atomic operations that return nothing (set_bit,
  get_page, atomic_inc), atomic reads and plain accesses order nothing.

Of one page each flag is a word of its own here; in the kernel they share one, so that it orders a
little more than this, and hides a little more.
"""

from __future__ import annotations

from fuzz.locklog import ACTIONS, DOWNGRADE, DROP, QUEUE
from kstate.machine import Event, Machine

Clock = dict[int, int]

# Value-returning atomic operations; rmqueue and free_one_page take the zone's lock inside.
FULL_BARRIERS = frozenset(
    {
        "test_and_set_bit", "test_and_clear_bit", "put_page_testzero", "atomic_inc_and_test",
        "atomic_add_negative", "atomic_dec_and_test", "ptep_get_and_clear", "atomic", "get_mm_user",
        "put_mm_user", "take_process", "rmqueue", "free_one_page",
    }
)  # fmt: skip
IF_THEY_SUCCEED = frozenset({"get_page_unless_zero", "page_freeze_refs", "atomic_inc_not_zero"})

_RCU_READERS, _RCU_UPDATERS = (-1, "rcu readers"), (-1, "rcu updaters")


class HappensBefore:
    """Feed it every event of a run, in order; then ask about what came before."""

    def __init__(self, machine: Machine) -> None:
        self._task_of = {task.id: task.index for task in machine.tasks}
        self._clocks: dict[int, Clock] = {}
        self._left: dict[tuple[int, str], Clock] = {}  # at a word or lock, for who comes next
        self._readers: dict[tuple[int, str], Clock] = {}  # those who dropped an rwsem as readers
        self._spawned: Clock = {}
        self._ended: dict[int, Clock] = {}
        self._cpu_of = {thing.id: thing.cpu for thing in machine.objects if hasattr(thing, "cpu")}

    def now(self, task: int) -> int:
        """The task's own time: a number to `before` later."""
        return self._clock(task).get(task, 0)

    def before(self, task: int, time: int, other: int) -> bool:
        """Does what `task` did at its `time` happen before what `other` does next?"""
        return task == other or self._clock(other).get(task, 0) >= time

    def see(self, event: Event) -> None:
        """Account for one event."""
        task, word = event.task, (event.operand, event.point.primitive.word)
        name = event.point.primitive.name
        if name in ACTIONS:
            self._lock(event, task, word)
        elif name in FULL_BARRIERS or (name in IF_THEY_SUCCEED and event.results[0]):
            self._acquire(task, self._left, word)
            self._release(task, self._left, word)
        else:
            self._other(event, task, word)

    def _lock(self, event: Event, task: int, word: tuple[int, str]) -> None:
        action = ACTIONS[event.point.primitive.name]
        if action.act == DOWNGRADE or (action.act == DROP and not action.shared):
            self._release(task, self._left, word)
        elif action.act == DROP:
            self._release(task, self._readers, word)
        elif not ((action.tries or action.act == QUEUE) and event.results[0] == 0):
            self._acquire(task, self._left, word)
            if not action.shared:
                self._acquire(task, self._readers, word)

    def _other(self, event: Event, task: int, word: tuple[int, str]) -> None:
        name = event.point.primitive.name
        if name == "spawn":
            self._publish(task, self._spawned)
        elif name == "begin":
            _join(self._clock(task), self._spawned)
        elif name == "end":
            self._publish(task, self._ended.setdefault(task, {}))
        elif name == "join":
            for clock in self._ended.values():
                _join(self._clock(task), clock)
        elif name.startswith("pagevec_"):
            owner = self._cpu_of.get(event.operand, -1) + 1  # tasks but the first have a CPU each
            _join(self._clock(task), self._ended.get(owner, {}))
        elif name in ("prepare_to_wait", "finish_wait", "wake_up_all"):
            self._acquire(task, self._left, word)
            self._release(task, self._left, word)
        elif name in ("schedule", "wait_on_page_writeback"):
            self._acquire(task, self._left, word)
        elif name == "rcu_read_lock":
            self._acquire(task, self._left, _RCU_UPDATERS)
        elif name == "rcu_read_unlock":
            self._release(task, self._left, _RCU_READERS)
        elif name == "synchronize_rcu":
            self._release(task, self._left, _RCU_UPDATERS)
        elif name == "synchronize_rcu_done":
            self._acquire(task, self._left, _RCU_READERS)
        elif name == "borrow_cpu":
            lender = self._task_of[event.operand]
            self._publish(lender, self._clock(task))
        elif name == "return_cpu":
            lender = self._task_of[event.operand]
            self._publish(task, self._clock(lender))

    def _clock(self, task: int) -> Clock:
        clock = self._clocks.get(task)
        if clock is None:
            clock = self._clocks[task] = {task: 1}
        return clock

    def _acquire(
        self, task: int, where: dict[tuple[int, str], Clock], word: tuple[int, str]
    ) -> None:
        if word in where:
            _join(self._clock(task), where[word])

    def _release(
        self, task: int, where: dict[tuple[int, str], Clock], word: tuple[int, str]
    ) -> None:
        self._publish(task, where.setdefault(word, {}))

    def _publish(self, task: int, into: Clock) -> None:
        """All that `task` has done is known where `into` is read; what it does now is not."""
        clock = self._clock(task)
        _join(into, clock)
        clock[task] += 1


def _join(into: Clock, other: Clock) -> None:
    for task, time in other.items():
        if into.get(task, 0) < time:
            into[task] = time
