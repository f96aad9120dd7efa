"""Data races of one run, in KCSAN's form: a report, never a finding.

Two accesses to one word by two tasks race where at least one writes, at least one is plain, and
neither happens before the other (happens.py says what orders). v4.4 reads vm_flags without a lock
by design: what is listed here is for people to judge.

Plain are `load` and `store` of words (vm_flags, mapping, index, private, i_size, pte), list and
pagevec operations, and swap_map. A test_bit of a page flag is a plain read of a word that others
write with atomic operations; KCSAN would be quiet about it, since it is volatile: such pairs are
listed apart. Marked, so that they race with plain accesses only: atomic operations, atomic reads,
the radix tree (RCU), what the MMU does to a pte. Each flag of a page is a word of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fuzz.callchain import CallChains
from fuzz.happens import HappensBefore
from fuzz.locklog import ACTIONS, Held, LockLog, label_of
from fuzz.prog.prog import Op, Program
from fuzz.prog.text import print_op
from fuzz.run import run
from kstate.machine import LOAD, Event, Machine, Note, Primitive

READ, WRITE = "read", "write"
PLAIN, TEST_BIT, MARKED = "plain", "test_bit", "marked"

MARKED_WORDS = frozenset({"mm_users", "page_tree"})  # atomic_read, rcu_dereference
PLAIN_NAMES = frozenset(
    {"list_add", "list_del", "list_move_tail", "pagevec_add", "pagevec_reinit", "pagevec_count"}
)
PLAIN_UPDATES = frozenset({"swap_map"})  # `update` of anything else is the MMU's
NO_ACCESS = frozenset(
    {
        "begin", "end", "spawn", "join", "borrow_cpu", "return_cpu", "yield_point",
        "retry_when_changed", "prepare_to_wait", "schedule", "wake_up_all", "rcu_read_lock",
        "rcu_read_unlock", "synchronize_rcu", "synchronize_rcu_done",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Access:
    """One side. kind: read or write. how: plain, test_bit or marked. point: its name. function:
    where. cpu: the task. operation: what it was doing. step: its number in the run. chain:
    functions down to this one, if they were watched. locks: held. values: its results."""

    kind: str
    how: str
    point: str
    function: str
    cpu: str
    operation: str
    step: int
    chain: tuple[str, ...]
    locks: tuple[str, ...]
    values: tuple[int, ...]


@dataclass(frozen=True)
class DataRace:
    """Two accesses that nothing orders. first: the earlier one in this run. times: how often this
    pair of points raced in it. by_test_bit: one side is only a test_bit."""

    word: str
    object: str
    first: Access
    second: Access
    times: int

    @property
    def by_test_bit(self) -> bool:
        return TEST_BIT in (self.first.how, self.second.how)


def classify(primitive: Primitive) -> tuple[str, str] | None:
    """(read or write, plain, test_bit or marked) of a primitive; None: it accesses no word."""
    name, word = primitive.name, primitive.word
    if name in ACTIONS or name in NO_ACCESS:
        return None
    kind = READ if primitive.access == LOAD else WRITE
    if name == "test_bit":
        return kind, TEST_BIT
    plain = (
        (name in ("load", "store") and word not in MARKED_WORDS)
        or name in PLAIN_NAMES
        or (name == "update" and word in PLAIN_UPDATES)
    )
    return kind, PLAIN if plain else MARKED


def data_races(
    machine: Machine, chains: Mapping[int, tuple[str, ...]] | None = None
) -> list[DataRace]:
    """The data races of a run that is over: those of plain accesses first, by word and place.

    Args:
        machine: of an outcome, `outcome.machine`, or one used by itself.
        chains: call chains by place in the log, of a CallChains that watched the run.
    """
    order, locks = HappensBefore(machine), LockLog()
    operations = _Operations(machine)
    seen: dict[tuple[int, str], dict[tuple[int, str], tuple[int, Access]]] = {}
    found: dict[tuple[str, ...], DataRace] = {}
    for number, event in enumerate(machine.events()):
        what = classify(event.point.primitive)
        if what is not None:
            word = (event.operand, event.point.primitive.word)
            there = seen.setdefault(word, {})
            access: Access | None = None
            for (task, _), (time, earlier) in there.items():
                if order.before(task, time, event.task) or not _conflict(earlier, what):
                    continue
                if access is None:
                    access = _access(
                        machine, event, number, what, operations, locks.held(event.task), chains
                    )
                _add(found, machine.objects[event.operand].label(), word[1], earlier, access)
            if access is None:
                access = _access(
                    machine, event, number, what, operations, locks.held(event.task), chains
                )
            there[event.task, event.point.name] = (order.now(event.task), access)
        locks.see(event)
        order.see(event)
    return sorted(
        found.values(),
        key=lambda race: (race.by_test_bit, race.word, race.first.point, race.second.point),
    )


def watched_data_races(program: Program, kernel: str | None = None) -> list[DataRace]:
    """Run a program with call chains watched, and report on that run."""
    chains = CallChains(lambda primitive: classify(primitive) is not None)
    return data_races(run(program, kernel, observers=(chains,)).machine, chains.by_log_at)


def _conflict(earlier: Access, what: tuple[str, str]) -> bool:
    kind, how = what
    if WRITE not in (earlier.kind, kind):
        return False
    return not (earlier.how == how == MARKED)


def _add(
    found: dict[tuple[str, ...], DataRace], object: str, word: str, one: Access, other: Access
) -> None:
    key = (word, *sorted((one.point, other.point)))
    known = found.get(key)
    if known is None:
        found[key] = DataRace(word, object, one, other, 1)
    else:
        found[key] = DataRace(word, known.object, known.first, known.second, known.times + 1)


def _access(
    machine: Machine,
    event: Event,
    number: int,
    what: tuple[str, str],
    operations: _Operations,
    held: tuple[Held, ...],
    chains: Mapping[int, tuple[str, ...]] | None,
) -> Access:
    chain = (chains or {}).get(event.log_at, ())
    return Access(
        kind=what[0],
        how=what[1],
        point=event.point.name,
        function=event.point.function,
        cpu=machine.tasks[event.task].name,
        operation=operations.at(event),
        step=number,
        chain=chain or (event.point.function,),
        locks=tuple(_lock(machine, lock) for lock in held),
        values=event.results,
    )


def _lock(machine: Machine, lock: Held) -> str:
    name = label_of(machine, lock.name, lock.object)
    return f"{name} for read" if lock.shared else name


class _Operations:
    """What each task was doing when, from the notes of the run."""

    def __init__(self, machine: Machine) -> None:
        self._begun: dict[int, list[Note]] = {}
        for note in machine.notes:
            if note.kind in ("operation-begin", "operation-end"):
                self._begun.setdefault(note.task, []).append(note)

    def at(self, event: Event) -> str:
        last: Note | None = None
        for note in self._begun.get(event.task, ()):
            if note.log_at > event.log_at:
                break
            last = note
        if last is None or last.kind == "operation-end":
            return ""
        process, name, arguments = last.about[:3]
        return print_op(Op(process, name, arguments))


def spell(race: DataRace) -> str:
    """A race in words, as KCSAN prints one."""
    first, second = race.first, race.second
    lines = [f"data race in {first.function} / {second.function}: {race.word} of {race.object}"]
    for access in (first, second):
        how = "" if access.how == PLAIN else f" ({access.how})"
        doing = f", in [{access.operation}]" if access.operation else ""
        lines.append(f"  {access.kind}{how} by {access.cpu} at step {access.step}{doing}:")
        lines.append(f"    {access.point}")
        lines.append(f"    called from {' < '.join(reversed(access.chain))}")
        values = " ".join(f"{value:#x}" for value in access.values)
        lines.append(f"    value {values or '-'}; holding {', '.join(access.locks) or 'no lock'}")
    if race.by_test_bit:
        lines.append("  test_bit: a plain read of a word that is written atomically")
    if race.times > 1:
        lines.append(f"  {race.times} times in this run")
    return "\n".join(lines)
