"""The machine: deterministic threads with a scheduler of one's own choosing. Knows no Linux.

In reading order:
    callers.py     who uses a primitive, in interpreted and in compiled code
    compiled.py    which of the two this is
    points.py      names of the places where a run can be interrupted
    switch.py      `step`, the one function that yields; greenlets and OS threads to run on
    task.py        a task
    machine.py     turns, the event log, how a run ends
    locks.py       spin locks, mutexes, rwsems, wait queues, RCU
    words.py       shared integers
    scheduler.py   all the machine asks of a scheduler
    choices.py     the two streams of random draws
    endings.py     how a run ends
"""

from kstate.machine.choices import Choices, choices_from_bytes
from kstate.machine.endings import (
    ContextError,
    Deadlock,
    Ending,
    KernelBug,
    ModelError,
    Report,
    StepLimit,
)
from kstate.machine.locks import (
    Mutex,
    MutexClass,
    RwSem,
    RwSemClass,
    SpinLock,
    SpinLockClass,
    WaitQueue,
    WaitQueueClass,
    down_read,
    down_read_trylock,
    down_write,
    down_write_trylock,
    downgrade_write,
    local_irq_enable,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    preempt_disable,
    preempt_enable,
    rcu_read_lock,
    rcu_read_unlock,
    rwsem_is_locked,
    spin_lock,
    spin_lock_irq,
    spin_trylock,
    spin_unlock,
    spin_unlock_irq,
    synchronize_rcu,
    up_read,
    up_write,
    wait_event,
    wake_up_all,
)
from kstate.machine.machine import (
    Event,
    Look,
    Machine,
    Note,
    Switch,
    borrow_cpu,
    decode,
    look,
    retry_when_changed,
    return_cpu,
    touch,
    yield_point,
)
from kstate.machine.points import LOAD, STORE, Operand, Point, Primitive, dependent, points_met
from kstate.machine.scheduler import UNLIMITED, Scheduler, Turn, default_task
from kstate.machine.switch import GREENLETS, THREADS, step
from kstate.machine.task import Task
from kstate.machine.words import Word, cmpxchg, fetch_add, load, store

__all__ = [
    "GREENLETS",
    "LOAD",
    "STORE",
    "THREADS",
    "UNLIMITED",
    "Choices",
    "ContextError",
    "Deadlock",
    "Ending",
    "Event",
    "KernelBug",
    "Look",
    "Machine",
    "ModelError",
    "Mutex",
    "MutexClass",
    "Note",
    "Operand",
    "Point",
    "Primitive",
    "Report",
    "RwSem",
    "RwSemClass",
    "Scheduler",
    "SpinLock",
    "SpinLockClass",
    "StepLimit",
    "Switch",
    "Task",
    "Turn",
    "WaitQueue",
    "WaitQueueClass",
    "Word",
    "borrow_cpu",
    "choices_from_bytes",
    "cmpxchg",
    "decode",
    "default_task",
    "dependent",
    "down_read",
    "down_read_trylock",
    "down_write",
    "down_write_trylock",
    "downgrade_write",
    "fetch_add",
    "load",
    "local_irq_enable",
    "look",
    "mutex_lock",
    "mutex_trylock",
    "mutex_unlock",
    "points_met",
    "preempt_disable",
    "preempt_enable",
    "rcu_read_lock",
    "rcu_read_unlock",
    "retry_when_changed",
    "return_cpu",
    "rwsem_is_locked",
    "spin_lock",
    "spin_lock_irq",
    "spin_trylock",
    "spin_unlock",
    "spin_unlock_irq",
    "step",
    "store",
    "synchronize_rcu",
    "touch",
    "up_read",
    "up_write",
    "wait_event",
    "wake_up_all",
    "yield_point",
]
