"""A program: everything that decides a run but the code itself. Text form: text.py, FORMAT.md."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kstate.boot import MachineSize
from kstate.machine.machine import Fault
from kstate.syscalls import Argument

FORMAT_VERSION = 1

# Limits; every one is checked where a program enters.
FILE_BYTES_MAX = 64 * 1024
TASKS_MAX = 8
OPERATIONS_MAX = 64  # in one section
TURNS_MAX = 4096
PAGES_MAX = 256
ZONES_MAX = 4
PROCESSES = "ABCD"
DEFAULT_SIZE = MachineSize()


class ProgError(ValueError):
    """A program that is not one. line, column: where, from 1 (0: the whole file)."""

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.line = line
        self.column = column

    def at(self, file: str) -> str:
        """`FILE:LINE:COL: what is wrong`, as much of it as is known."""
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        return f"{place}: {self.text}"


@dataclass(frozen=True)
class Op:
    """One operation: a process, a name of kstate.syscalls.OPERATIONS, its arguments."""

    process: str
    name: str
    arguments: tuple[Argument, ...] = ()


UNTIL, THROUGH, FOR, BLOCKED, END = "until", "through", "for", "blocked", "end"


@dataclass(frozen=True)
class TurnSpec:
    """One turn of an explicit schedule.

    kind: UNTIL: stop before the `count`-th arrival at `point`, counted from the turn's start.
    THROUGH: stop once it has taken effect. FOR: `count` steps. BLOCKED: until it blocks. END.
    point: `mm/rmap.py:try_to_unmap_one spin_unlock(ptl)`, or `...(ptl@A)` for one instance.
    cpu: -1 for init, where it competes, as in a program of the user's own.
    """

    cpu: int
    kind: str
    point: str = ""
    count: int = 1

    @property
    def task(self) -> str:
        """Whose turn it is: `cpu0`."""
        return "init" if self.cpu < 0 else f"cpu{self.cpu}"


@dataclass(frozen=True)
class Expect:
    """What a run on `kernel` shows. id: a finding; absent: it must not be shown; id "" and absent:
    nothing at all may be shown."""

    kernel: str
    id: str = ""
    absent: bool = False


@dataclass(frozen=True)
class ChoicesSpec:
    """A schedule by scheduler and draws, instead of turns."""

    scheduler: str
    schedule: tuple[int, ...] = ()
    faults: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """A run's whole input. `comments`: (line of the canonical text, above it?, text)."""

    kernel: str = "v4.3"
    size: MachineSize = DEFAULT_SIZE
    init: tuple[Op, ...] = ()
    tasks: tuple[tuple[Op, ...], ...] = ()
    yield_at: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    schedule: tuple[TurnSpec, ...] | None = None
    choices: ChoicesSpec | None = None
    expects: tuple[Expect, ...] = ()
    comments: tuple[tuple[int, bool, str], ...] = field(default=(), compare=False)

    def processes(self) -> tuple[str, ...]:
        """The processes that act, in order; they exist from the start."""
        acting = {op.process for section in (self.init, *self.tasks) for op in section}
        return tuple(sorted(acting))

    def bare(self) -> Program:
        """The same program without schedule, expectations and comments: what a scheduler is for."""
        return replace(self, schedule=None, choices=None, expects=(), comments=())

    def operations_count(self) -> int:
        return len(self.init) + sum(len(task) for task in self.tasks)
