"""The machine: tasks, whose turn it is, the event log, and how a run ends. Knows no Linux."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from struct import pack
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple, NoReturn

from kstate.machine.callers import RUNNING, Function, calling
from kstate.machine.choices import FAULTS, Choices
from kstate.machine.endings import (
    ContextError,
    Deadlock,
    Ending,
    ModelError,
    NotATask,
    Report,
    StepLimit,
    TaskKilled,
)
from kstate.machine.points import LOAD, Operand, Point, Primitive, function_name, point_by_number
from kstate.machine.scheduler import UNLIMITED, Scheduler, Turn, default_task
from kstate.machine.switch import GREENLETS, Backend, Context, step
from kstate.machine.task import Task

STEPS_MAX = 20_000
KILLS_MAX = 1000  # how often one task may go on although it is unwound
_ESCAPES = (Exception, Ending, SystemExit, KeyboardInterrupt)
_NEVER_RUN = (GeneratorType, CoroutineType, AsyncGeneratorType)
Fault = tuple[str, str, int]  # task, what fails, at which of its calls (from 1)
Observer = Callable[[Task, Point, Operand], None]
Look = tuple[int, Operand, str, bool]  # when, as a place in the log; at what; was it changed

_TASK_BODY = Function("machine.py", "_body")
BEGIN = Primitive("begin", "task", used_by=_TASK_BODY)
END = Primitive("end", "task", used_by=_TASK_BODY)
SPAWN = Primitive("spawn", "machine", results=1, used_by=Function("machine.py", "spawn"))
START = Primitive("spawn", "machine", results=1, used_by=Function("machine.py", "start"))
YIELD = Primitive("yield_point", "name", LOAD)


def _all_ended(machine: Machine, task: Task) -> bool:
    for joined, _, _ in task.watched:
        if not joined.ended:
            return False
    return True


def _joined(machine: Machine, task: Task) -> list[Task]:
    return [joined for joined, _, _ in task.watched if not joined.ended]


def _word_stored(operand: Operand, task: Task) -> bool:
    return any(getattr(thing, slot) != seen for thing, slot, seen in task.watched)


JOIN = Primitive("join", "machine", ready=_all_ended, holders=_joined)
RETRY = Primitive("retry_when_changed", "word", LOAD, ready=_word_stored)


def _cpu_preemptible(task: Task, borrower: Task) -> bool:
    return task.ended or not (task.preempt_count or task.lent)


BORROW = Primitive(
    "borrow_cpu", "cpu", ready=_cpu_preemptible, holders=lambda task, borrower: [task]
)
RETURN = Primitive("return_cpu", "cpu")


class Switch(NamedTuple):
    """One change of turn. log_at: where the log stood. step: how many steps were done before.
    preempted: the task that was left could have gone on; its next point and operand stand here.
    chosen: the default run would have gone on with another task than this one."""

    log_at: int
    step: int
    left: int
    entered: int
    preempted: bool
    point: Point | None
    operand: int
    chosen: bool


class Event(NamedTuple):
    """One step, decoded: who, where, on what object, with what results."""

    task: int
    point: Point
    operand: int
    results: tuple[int, ...]
    log_at: int


class Note(NamedTuple):
    """A fact told with `note`: outside the hash, not a step. log_at: when, as a place in the log.
    objects_count: objects with a smaller id existed by then."""

    log_at: int
    task: int
    kind: str
    about: tuple[Any, ...]
    objects_count: int


class Machine:
    """Runs tasks one step at a time, in the order the scheduler says.

    Args:
        scheduler: decides wherever two or more tasks could run.
        choices: its random draws, and the injected faults.
        steps_max: the run ends with `StepLimit` after so many steps.
        backend: `GREENLETS` or `THREADS`.
        yield_at: globs over point names; the scheduler is asked only at matching points (and
            where a task blocks or ends). None: everywhere.
        observers: called before every step but begin, when it is about to take effect.
        faults: what fails, by name; see `fault`.

    looked: what `look` and `touch` tell; None where nobody wants to know.
    """

    __slots__ = (
        "_alive",
        "_backend",
        "_blocked",
        "_closely",
        "_fault_calls",
        "_granted",
        "_hub",
        "_kills",
        "_masked",
        "_notes",
        "_over",
        "_retrying",
        "_subscribers",
        "_switches",
        "_turn_left",
        "_yield_at",
        "choices",
        "current",
        "ending",
        "error",
        "faults",
        "faults_taken",
        "id",
        "left",
        "log",
        "looked",
        "machine",
        "objects",
        "observers",
        "reports",
        "scheduler",
        "steps_done",
        "steps_max",
        "tasks",
        "wakes",
    )

    def __init__(
        self,
        scheduler: Scheduler,
        choices: Choices | None = None,
        *,
        steps_max: int = STEPS_MAX,
        backend: Backend = GREENLETS,
        yield_at: Sequence[str] | None = None,
        observers: Sequence[Observer] = (),
        faults: Iterable[Fault] = (),
    ) -> None:
        self.faults = frozenset(faults)
        self.faults_taken: list[Fault] = []
        self._fault_calls: dict[tuple[str, str], int] = {}
        self.scheduler = scheduler
        self.choices = choices or Choices()
        self.steps_max = steps_max
        self.observers = tuple(observers)
        self.objects: list[Operand] = []
        self.machine = self  # a machine is an operand too, of spawn and join
        self.id = self.register(self)
        self.log: list[int] = []
        self.looked: list[Look] | None = None
        self._notes: list[tuple[int, int, str, tuple[Any, ...], int]] = []
        self.reports: list[Report] = []
        self._switches: list[tuple[int, int, int, int, bool, Point | None, int, bool]] = []
        self.tasks: list[Task] = []
        self.ending: Ending | None = None
        self.error: BaseException | None = None
        self.left = 0
        self.wakes = False
        self.steps_done = 0
        self._alive: list[Task] = []
        self._blocked = False
        self._over = False
        self._retrying = False
        self._granted = 0
        self._kills = 0
        self._turn_left = 0
        self._backend = backend
        self._hub: Context | None = None
        self._yield_at = None if yield_at is None else tuple(yield_at)
        # An observer sees every step, and so does the mask of yield points.
        self._closely = bool(self.observers) or yield_at is not None
        self._masked: dict[str, bool] = {}
        self._subscribers: dict[str, list[Callable[[Note], None]]] = {}
        self.current: Task = None  # type: ignore[assignment]  # set before any task runs

    def label(self) -> str:
        return "machine"

    def register(self, thing: Operand) -> int:
        """Number an object; numbers are given in order of creation."""
        self.objects.append(thing)
        return len(self.objects) - 1

    # ---- running -------------------------------------------------------------------------

    def run(self, root: Callable[[], Any], name: str = "init") -> Ending | None:
        """Run `root` as the first task, until it ends or something ends the run.

        Returns: what ended it, None if it ended by itself.
        Raises: NotATask, ModelError, and whatever else escaped from a task that is not an Ending.
        """
        self.scheduler.begin(self.choices)
        self._hub = self._backend.here()
        first = self._new_task(name, 0, root)
        self._enter(first, Turn(first))
        assert first.context is not None
        first.context.resume()
        self._clean_up()
        if self.error is not None:
            raise self.error
        return self.ending

    def spawn(self, *functions: Callable[[], Any], names: Sequence[str] = ()) -> list[Task]:
        """Start tasks on the next CPUs, all in one step. They compete from here on."""
        tasks = self._spawn(SPAWN, functions, names)
        self.interrupt()
        return tasks

    def start(self, *functions: Callable[[], Any], names: Sequence[str] = ()) -> list[Task]:
        """Like `spawn`, but the caller keeps its turn: for one that goes on straight to `join`."""
        return self._spawn(START, functions, names)

    def join(self, *tasks: Task) -> None:
        """Wait until all of `tasks` have ended. One step."""
        me = self.current
        me.watched = tuple((task, "ended", False) for task in tasks)
        if not _all_ended(self, me):
            self.interrupt()
        step(JOIN, self)
        me.watched = ()

    def _spawn(
        self, primitive: Primitive, functions: Sequence[Callable[[], Any]], names: Sequence[str]
    ) -> list[Task]:
        log = step(primitive, self)
        tasks = []
        for at, function in enumerate(functions):
            cpu = len(self.tasks) - 1
            name = names[at] if at < len(names) else f"cpu{cpu}"
            tasks.append(self._new_task(name, cpu, function))
        log.append(len(tasks))
        return tasks

    def _new_task(self, name: str, cpu: int, function: Callable[[], Any]) -> Task:
        task = Task(self, len(self.tasks), name, cpu, function)
        task.point = BEGIN.in_function(_TASK_BODY)
        context = self._backend.take()
        context.start(lambda: self._body(task))
        task.context = context
        self.tasks.append(task)
        self._alive.append(task)
        return task

    def _body(self, task: Task) -> Context:
        """What a task's context runs. Returns whom to resume when the task is over."""
        assert self._hub is not None
        try:
            self.left += 1  # its turn counts the step it waits at, and nobody has counted that
            step(BEGIN, task)
            result = task.function()
            if isinstance(result, _NEVER_RUN):
                if not isinstance(result, AsyncGeneratorType):
                    result.close()  # else Python warns of it
                raise NotATask(f"{task.name} is a generator or a coroutine: its body never runs")
            step(END, task)
        except _ESCAPES as error:
            if self._over:  # it did this while it was unwound
                raise TaskKilled from None
            self._end(task)
            if isinstance(error, Ending):
                self.ending = error
            else:
                self.error = error
            return self._hub
        self._end(task)
        if task is self.tasks[0]:
            return self._hub
        try:
            self._count(0)
            following = self._decide(None)
        except Ending as ending:
            self.ending = ending
            return self._hub
        except Exception as error:  # the scheduler's
            self.error = error
            return self._hub
        assert following.context is not None
        return following.context

    def _end(self, task: Task) -> None:
        task.ended = True
        self._alive.remove(task)
        if task.context is not None:
            self._backend.give_back(task.context)

    def _clean_up(self) -> None:
        """Unwind the tasks that are still parked. What they do on the way (`finally`) ends at its
        first step. The context of one that cannot be unwound is not used again."""
        RUNNING.functions = []
        self._over = True
        last = self.current
        for task in self._alive:
            assert task.context is not None
            self.current = task
            self.left = self._kills = 0
            if task.point is not None and task.point.primitive is not BEGIN:
                task.context.kill()
            if self._kills > KILLS_MAX:
                _LEFT.append(task.context)
            else:
                self._backend.give_back(task.context)
        self.current = last
        for task in self.tasks:
            task.context = None

    # ---- turns ---------------------------------------------------------------------------

    def ask(self, point: Point, operand: Operand) -> None:
        """Called by `step` when the turn is used up, in the running task's own context."""
        if self._over:
            self._killed()
        task = self.current
        task.point = point
        task.operand = operand
        self._count(1)
        if self.steps_done >= self.steps_max:
            self._stop(StepLimit(f"still running after {self.steps_max} steps"))
        if (self._turn_left > 0 or self._yield_at is not None) and self._goes_on(task, point):
            self._grant()
        else:
            try:
                following = self._decide(task)
            except (Ending, Exception) as error:
                self._stop(error)
            if following is not task:
                assert following.context is not None
                following.context.resume()
        for observer in self.observers:
            observer(task, point, operand)

    def _stop(self, error: BaseException) -> NoReturn:
        """End the run here, for good. The task does not see why, so that nothing that it would do
        on its way out (`finally`, `except`) is taken for a part of the run."""
        if isinstance(error, Ending):
            self.ending = error
        else:
            self.error = error
        self._over = True
        assert self._hub is not None
        self._hub.resume()
        raise TaskKilled

    def _killed(self) -> NoReturn:
        """A task that is unwound takes a step: it ends there. One that goes on and on is left."""
        self._kills += 1
        if self._kills > KILLS_MAX:
            assert self._hub is not None
            self._hub.resume()
        raise TaskKilled

    def interrupt(self) -> None:
        """End the running turn: the next step asks."""
        self._count(0)
        self.left = self._granted = self._turn_left = 0

    def woke(self) -> None:
        """A step may have made a blocked task ready. Primitives call it where `wakes` is set."""
        self.interrupt()

    def _count(self, pending: int) -> None:
        """Account for the steps of this grant; `pending` of them is counted but not yet taken."""
        taken = self._granted - self.left - pending
        self.steps_done += taken
        self._turn_left -= taken
        self._granted = self.left = 0

    def _goes_on(self, task: Task, point: Point) -> bool:
        """Does its turn last? It does too where the scheduler is not to be asked."""
        if self.scheduler.every_step or not task.ready():
            return False
        if self._turn_left <= 0 and self._is_masked(point):
            self._turn_left = 1
        return self._turn_left > 0

    def _grant(self) -> None:
        steps = 1 if self._closely or self.scheduler.every_step else self._turn_left
        if steps > self.steps_max - self.steps_done:
            steps = self.steps_max - self.steps_done
        self._granted = steps
        self.left = steps - 1

    def _decide(self, asking: Task | None) -> Task:
        """Choose who goes on and give it its turn. `asking`: who has come to its next step."""
        runnable = []
        current = None  # who asks, if it can go on
        self._blocked = self._retrying = False
        for task in self._alive:
            point = task.point
            if point is not None and not task.lent:
                ready = point.primitive.ready
                if ready is None or ready(task.operand, task):
                    runnable.append(task)
                    if task is asking:
                        current = task
                elif point.primitive is RETRY:
                    self._retrying = True
                elif point.primitive is not JOIN:  # the end of a task asks anyway
                    self._blocked = True
            elif task.lent:
                self._blocked = True
        if not runnable:
            raise self._deadlock()
        if len(runnable) == 1 and not self.scheduler.every_step:
            turn = Turn(runnable[0], UNLIMITED, True)
        else:
            turn = self.scheduler.pick(runnable, current, self.steps_done)
            if turn.steps < 1 or turn.task not in runnable:
                raise ModelError(f"{self.scheduler} answered {turn}, runnable are {runnable}")
        left = self.current
        if turn.task is not left:
            self._switches.append(
                (
                    len(self.log),
                    self.steps_done,
                    left.index,
                    turn.task.index,
                    current is not None,
                    left.point if not left.ended else None,
                    left.operand.id,
                    turn.task is not default_task(runnable, current),
                )
            )
        self._enter(turn.task, turn)
        return turn.task

    def _enter(self, task: Task, turn: Turn) -> None:
        if task is not self.current:
            self.log.append(-1 - task.index)
            self.current = task
            RUNNING.functions = task.functions
        self._turn_left = 1 if self._retrying else turn.steps
        self.wakes = turn.until_wake and self._blocked
        self._grant()

    @property
    def globs_met(self) -> frozenset[str]:
        """Those of `yield_at` that a point of this run matches."""
        if not self._yield_at:
            return frozenset()
        names = {event.point.name for event in self.events()}
        matched = (g for g in self._yield_at if any(fnmatchcase(name, g) for name in names))
        return frozenset(matched)

    def _is_masked(self, point: Point) -> bool:
        masked = self._masked.get(point.name)
        if masked is None:
            assert self._yield_at is not None
            masked = not any(fnmatchcase(point.name, glob) for glob in self._yield_at)
            self._masked[point.name] = masked
        return masked

    def _deadlock(self) -> Deadlock:
        waits = [
            (
                task.name,
                "" if task.point is None else f"{task.point.primitive} of {task.operand.label()}",
                [holder.name for holder in task.blocked_on()],
            )
            for task in self._alive
        ]
        lines = [
            f"{who} waits for {what} held by {', '.join(by) or '?'}" for who, what, by in waits
        ]
        return Deadlock("; ".join(lines), waits)

    # ---- what a run tells ------------------------------------------------------------------

    def report(self, id: str, text: str, where: str = "", *objects: Operand) -> None:
        """Record a finding and go on. `where`: the reporting function, by default the caller's."""
        where = where or calling_function(1)
        self.reports.append(Report(id, text, where, tuple(thing.label() for thing in objects)))

    def note(self, kind: str, *about: Any) -> None:
        """Record a fact: no step, outside the hash. Subscribers are told at once."""
        self._notes.append((len(self.log), self.current.index, kind, about, len(self.objects)))
        if kind in self._subscribers:
            note = Note._make(self._notes[-1])
            for tell in self._subscribers[kind]:
                tell(note)

    @property
    def notes(self) -> list[Note]:
        """All notes so far."""
        return [Note._make(note) for note in self._notes]

    @property
    def switches(self) -> list[Switch]:
        """All changes of turn so far."""
        return [Switch._make(switch) for switch in self._switches]

    def subscribe(self, kind: str, tell: Callable[[Note], None]) -> None:
        self._subscribers.setdefault(kind, []).append(tell)

    def observe(self, observer: Observer) -> None:
        """From here on, call `observer` before every step but begin takes effect."""
        self.observers = (*self.observers, observer)
        self._closely = True

    def fault(self, kind: str) -> bool:
        """Should this call fail? `kind` names what can: `alloc_page`.

        A fault is asked for by name, (task, kind, its n-th such call), or drawn from the stream.
        """
        task = self.current.name
        count = self._fault_calls.get((task, kind), 0) + 1
        self._fault_calls[task, kind] = count
        fails = (task, kind, count) in self.faults or self.choices.choose(2, FAULTS) == 1
        if fails:
            self.faults_taken.append((task, kind, count))
        return fails

    @property
    def fault_calls(self) -> list[Fault]:
        """All calls of `fault` so far, taken or not."""
        return [
            (task, kind, number)
            for (task, kind), count in self._fault_calls.items()
            for number in range(1, count + 1)
        ]

    def trace_hash(self) -> str:
        """SHA-256 over (task, point, operand, result) of every step so far."""
        # One call that takes them all: array("q", log) converts them one by one, 9 times slower.
        return sha256(pack(f"{len(self.log)}q", *self.log)).hexdigest()

    def events(self, since: int = 0) -> Iterator[Event]:
        """The log, decoded, a step at a time, from a place in it (a note's log_at) on."""
        return decode(self.log, since)

    def forget(self) -> None:
        """Let go of the run, which cannot be looked at any more: most of it is freed at once then,
        and need not wait for the garbage collector, which takes longer than to make it."""
        for task in self.tasks:
            task.operand = self  # not itself, as at its end
        self.objects = []
        self.tasks = []
        self.log = []
        self._notes = []
        self.looked = None
        self._subscribers = {}
        self._alive = []
        self._hub = None
        if self.ending is not None:
            self.ending.__traceback__ = None
        self.current = self.machine = None  # type: ignore[assignment]

    def stacks(self) -> Iterable[tuple[Task, list[str]]]:
        """Tasks that are still alive, with what each would do next."""
        for task in self._alive:
            yield task, [str(task.point)]

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return self.steps_done + (self._granted - self.left if self._granted else 0)


def decode(log: Sequence[int], since: int = 0) -> Iterator[Event]:
    """Events of a log from a place where one begins, such as a note's log_at. Of those before the
    next change of task the task is not known: -1."""
    at, task = since, -1 if since else 0
    while at < len(log):
        number = log[at]
        if number < 0:
            task = -1 - number
            at += 1
            continue
        point = point_by_number(number)
        end = at + 2 + point.primitive.results
        yield Event(task, point, log[at + 1], tuple(log[at + 2 : end]), at)
        at = end


def calling_function(depth: int = 1) -> str:
    """`mm/rmap.py:try_to_unmap_one` of the function `depth` frames above the caller."""
    return function_name(calling(depth + 1))


def retry_when_changed(*words: tuple[Operand, str]) -> None:
    """Wait until one of `words`, (object, private slot), is stored with another value.

    For a kernel loop that only retries because another CPU is mid-way: it never spins."""
    machine = words[0][0].machine
    task = machine.current
    task.watched = tuple((thing, slot, getattr(thing, slot)) for thing, slot in words)
    for thing, _ in words:
        look(thing)
    machine.interrupt()
    step(RETRY, words[0][0])
    task.watched = ()
    for thing, _ in words:
        look(thing)


def look(thing: Operand, word: str = "") -> None:
    """The step just taken has also read a private slot, which takes no step of its own.

    For a search that must know what depends on what; nothing else takes notice.
    word: the class of field, as primitives name it; by default all of the object."""
    looked = thing.machine.looked
    if looked is not None:
        looked.append((len(thing.machine.log), thing, word, False))


def touch(thing: Operand, word: str = "") -> None:
    """The step just taken has also changed a private slot, which takes no step of its own."""
    looked = thing.machine.looked
    if looked is not None:
        looked.append((len(thing.machine.log), thing, word, True))


def borrow_cpu(task: Task) -> None:
    """Run work on another task's CPU: waits until that may be preempted, then holds it up."""
    if not _cpu_preemptible(task, task.machine.current):
        task.machine.interrupt()
    step(BORROW, task)
    task.lent = True


def return_cpu(task: Task) -> None:
    step(RETURN, task)
    task.lent = False
    if task.machine.wakes:
        task.machine.woke()


def yield_point(machine: Machine, name: str) -> None:
    """A yield point of one's own; it touches nothing. Its name stands in the trace."""
    primitive = _USER_POINTS.get(name)
    if primitive is None:
        primitive = _USER_POINTS[name] = Primitive("yield_point", name, LOAD)
    step(primitive, machine)


_USER_POINTS: dict[str, Primitive] = {}
_LEFT: list[Context] = []  # contexts of tasks that could not be unwound


def atomic_context(task: Task) -> str:
    """Why `task` may not sleep now, or an empty string."""
    if task.preempt_count:
        return f"preempt_count {task.preempt_count}"
    if task.irqs_off:
        return "interrupts off"
    if task.rcu_depth:
        return "RCU read-side section"
    return ""


def might_sleep(machine: Machine, what: str) -> None:
    """Called by every primitive that can sleep, before its step."""
    why = atomic_context(machine.current)
    if why:
        machine.report(
            "sleeping-in-atomic",
            f"BUG: sleeping function called from invalid context: {what}, {why}",
            calling_function(2),
        )


def context_error(text: str) -> ContextError:
    return ContextError(text, calling_function(2))
