"""The N-column diagram, drawn the way the thread draws races: one column a CPU, time downwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fuzz.conflict import conflict_of
from fuzz.findings import FINDINGS
from fuzz.oracles import ALL_ORACLES
from fuzz.prog.prog import Op, Program, TurnSpec
from fuzz.prog.text import print_op
from fuzz.run import Outcome, run
from fuzz.schedulers.replay import Diverged, Replay
from fuzz.subject import MachineSubject, Ran
from fuzz.turns import init_competes
from kstate.flags import VM_LOCKED
from kstate.machine import LOAD, Machine, Operand, Point, Report, Switch, Task, Word
from kstate.machine.callers import call_chain

MODEL_FILES = ("/kstate/mm/", "/kstate/pool.py", "/kstate/syscalls.py")
HIDDEN = ("call", "access")
# Words whose every use would be drawn and seldom decides anything.
_BORING = ("ptl", "lru_lock", "tree_lock", "rcu", "pagevec", "lru", "refcount", "free_list")
COLUMN_MIN, COLUMN_MAX = 36, 56


@dataclass(frozen=True)
class _Scene:
    """A run to draw. heading: lines above it. ops: of each task, if it has operations. first: the
    index of the first task that has a column."""

    machine: Machine
    findings: tuple[Report, ...]
    heading: tuple[str, ...]
    ops: tuple[tuple[Op, ...], ...] = ()
    diverged: Diverged | None = None
    first: int = 1


@dataclass
class _Step:
    task: int
    point: Point
    operand: int
    log_at: int
    stack: tuple[str, ...]
    results: tuple[int, ...] = ()
    matters: bool = False
    comments: list[str] = field(default_factory=list)


def diagram(program: Program, kernel: str | None = None) -> tuple[str, Outcome]:
    """Run a program and draw it. Returns the text and the outcome."""
    steps: list[_Step] = []
    outcome_log: list[list[int]] = []

    def observe(task: Task, point: Point, operand: Operand) -> None:
        log = operand.machine.log
        if not outcome_log:
            outcome_log.append(log)
        steps.append(_Step(task.index, point, operand.id, len(log), _stack()))

    outcome = run(program, kernel, oracles=ALL_ORACLES, observers=(observe,))
    log = outcome_log[0] if outcome_log else []
    competing = [step for step in steps if step.task > 0]
    for step in competing:
        end = step.log_at + 2 + step.point.primitive.results
        step.results = tuple(log[step.log_at + 2 : end])
    scene = _Scene(
        outcome.machine,
        outcome.findings,
        (f"kernel {outcome.kernel}", *(f"  before: {print_op(op)}" for op in program.init)),
        program.tasks,
        outcome.diverged,
    )
    _choose(competing, scene)
    return "\n".join(_draw(scene, competing)) + "\n", outcome


def machine_diagram(
    subject: MachineSubject, turns: Sequence[TurnSpec], name: str
) -> tuple[str, Ran]:
    """The same of a program against the machine alone, `name` for short: every step of its tasks is
    drawn, init's only where it competes; the functions named are those of its file."""
    file = getattr(getattr(subject.setup, "__code__", None), "co_filename", "")
    steps: list[_Step] = []

    def observe(task: Task, point: Point, operand: Operand) -> None:
        chain = [code.co_name for code in call_chain(4) if code.co_filename == file]
        stack = tuple(name for name in reversed(chain) if not name.startswith("<"))
        log_at = len(operand.machine.log)
        steps.append(_Step(task.index, point, operand.id, log_at, stack, matters=True))

    scheduler = Replay(turns)
    ran = subject.run(scheduler, observers=(observe,))
    log = ran.machine.log
    first = 0 if init_competes(ran.machine) else 1
    drawn = [step for step in steps if step.task >= first and step.point.primitive.name != "end"]
    for step in drawn:
        end = step.log_at + 2 + step.point.primitive.results
        step.results = tuple(log[step.log_at + 2 : end])
    findings = tuple(Report(id, text, name) for id, text in ran.findings.items())
    scene = _Scene(ran.machine, findings, (name,), diverged=scheduler.finish(), first=first)
    return "\n".join(_draw(scene, drawn)) + "\n", ran


def _stack() -> tuple[str, ...]:
    """Model functions from the operation down to the primitive's caller."""
    names = []
    for code in call_chain(5):  # over _stack, observe, ask, step, the primitive
        if code.co_name == "_perform":
            break
        if any(part in code.co_filename for part in MODEL_FILES) and not code.co_name.startswith(
            "<"
        ):
            name = code.co_name
            if name not in HIDDEN and not name.startswith(("op_", "_visit")):
                names.append(name)
    return tuple(reversed(names))


def _choose(steps: list[_Step], scene: _Scene) -> None:
    """Mark what matters: both ends of every communication between tasks that a turn deviating from
    the default run has made, and what findings are about."""
    last: dict[tuple[int, str], dict[int, _Step]] = {}
    about = {
        (label, FINDINGS[finding.id].word)
        for finding in scene.findings
        if finding.id in FINDINGS and FINDINGS[finding.id].word
        for label in finding.objects
    }
    words = {word for _, word in about}
    objects = scene.machine.objects
    final: dict[tuple[str, str], _Step] = {}
    for step in steps:
        primitive = step.point.primitive
        stores = primitive.access != LOAD
        if primitive.word not in _BORING or primitive.word in words:
            seen = last.setdefault((step.operand, primitive.word), {})
            for task, before in seen.items():
                if task != step.task and (stores or before.point.primitive.access != LOAD):
                    step.matters = before.matters = True
            if stores:
                seen.clear()  # what came before is settled
            seen[step.task] = step
        if stores and _changes(step) and (objects[step.operand].label(), primitive.word) in about:
            step.matters = True
            final[objects[step.operand].label(), primitive.word] = step
    for finding in scene.findings:
        info = FINDINGS.get(finding.id)
        for label in finding.objects:
            step_about = final.get((label, info.word)) if info else None
            if step_about is not None:
                step_about.comments.append(finding.text)


def _changes(step: _Step) -> bool:
    """A test-and-set that found the bit set changed nothing."""
    name = step.point.primitive.name
    if name == "test_and_set_bit":
        return step.results == (0,)
    if name == "test_and_clear_bit":
        return step.results == (1,)
    return True


def _draw(scene: _Scene, steps: list[_Step]) -> Iterator[str]:
    end = max(scene.first + 1, len(scene.machine.tasks))
    names = [TurnSpec(index - 1, "").task for index in range(scene.first, end)]
    rows = list(_rows(scene, steps))
    width = max((len(text) for _, text, _ in rows), default=0) + 2
    width = max(COLUMN_MIN, min(COLUMN_MAX, width))
    yield from scene.heading
    yield ""
    yield "".join(name.ljust(width) for name in names).rstrip()
    yield "".join("----".ljust(width) for _ in names).rstrip()
    for index, text, comments in rows:
        lead = " " * (width * (index - scene.first))
        yield (lead + text).rstrip()
        for comment in comments:
            yield f"{lead}    // {comment}"
    yield ""
    for finding in scene.findings:
        yield f"// {finding.id}: {finding.text}"
    if not scene.findings:
        yield "// nothing found"
    conflict = conflict_of(scene.machine) if scene.findings else None
    if conflict is not None:
        yield f"// {conflict.early_task} in {conflict.early}"
        yield f"// came before {conflict.late_task} in {conflict.late}, on {conflict.object}"
    if scene.diverged is not None:
        turn = scene.diverged
        yield f"// diverged at turn {turn.turn + 1} ({turn.expected}): {turn.actual}"


def _rows(scene: _Scene, steps: list[_Step]) -> Iterator[tuple[int, str, list[str]]]:
    """(task, text, comments), in time order."""
    machine = scene.machine
    first = scene.first
    starts = {switch.log_at: switch for switch in machine.switches if switch.entered >= first}
    stacks: dict[int, tuple[str, ...]] = {}
    ops = {number: iter(task) for number, task in enumerate(scene.ops, 1)}
    pending = sorted(starts)
    objects = machine.objects
    notes = [note for note in machine.notes if note.kind == "operation-begin"]
    for step in steps:
        while pending and pending[0] <= step.log_at:
            switch = starts[pending.pop(0)]
            if switch.preempted and switch.left >= first:
                yield switch.left, f"--- left before {_next_step(switch)} ---", []
        while notes and notes[0].log_at <= step.log_at:
            note = notes.pop(0)
            if note.task > 0:
                op = next(ops[note.task])
                stacks[note.task] = ()
                yield note.task, f"[{print_op(op)}]", []
        if not step.matters:
            continue
        old = stacks.get(step.task, ())
        common = 0
        while common < min(len(old), len(step.stack)) and old[common] == step.stack[common]:
            common += 1
        for depth in range(common, len(step.stack)):
            yield step.task, f"{' ' * (depth + 1)}{step.stack[depth]}()", []
        stacks[step.task] = step.stack
        text = f"{' ' * (len(step.stack) + 1)}{_say(step, objects[step.operand])}"
        yield step.task, text, step.comments
    for finding in scene.findings:
        if machine.ending is not None and finding.id == machine.ending.id:
            task = machine.current.index
            if task >= first:
                yield task, "", [finding.text]


def _next_step(switch: Switch) -> str:
    return "its next step" if switch.point is None else str(switch.point.primitive)


def _say(step: _Step, thing: Operand) -> str:
    primitive = step.point.primitive
    results = ""
    if primitive.name.startswith(("test", "trylock", "spin_trylock", "down_read_trylock")):
        results = " = " + ("yes" if step.results[0] else "no")
    elif primitive.word == "vm_flags":
        locked = step.results[0] & VM_LOCKED
        results = " = VM_LOCKED" if locked else " = not VM_LOCKED"
    elif primitive.word in ("refcount", "mapcount") and step.results:
        results = f" = {step.results[0]}"
    elif isinstance(thing, Word) and step.results:
        results = " = " + ", ".join(map(str, step.results))
    return f"{primitive} {thing.label()}{results}"
