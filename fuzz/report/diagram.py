"""The N-column diagram, drawn the way the thread draws races: one column a CPU, time downwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fuzz.conflict import conflict_of
from fuzz.findings import FINDINGS
from fuzz.oracles import ALL_ORACLES
from fuzz.prog.prog import Program
from fuzz.prog.text import print_op
from fuzz.run import Outcome, run
from kstate.flags import VM_LOCKED
from kstate.machine import LOAD, Operand, Point, Switch, Task
from kstate.machine.callers import call_chain

MODEL_FILES = ("/kstate/mm/", "/kstate/pool.py", "/kstate/syscalls.py")
HIDDEN = ("call", "access")
# Words whose every use would be drawn and seldom decides anything.
_BORING = ("ptl", "lru_lock", "tree_lock", "rcu", "pagevec", "lru", "refcount", "free_list")
COLUMN_MIN, COLUMN_MAX = 36, 56


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
    _choose(competing, outcome)
    return "\n".join(_draw(program, competing, outcome)) + "\n", outcome


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


def _choose(steps: list[_Step], outcome: Outcome) -> None:
    """Mark what matters: both ends of every communication between tasks that a turn deviating from
    the default run has made, and what findings are about."""
    last: dict[tuple[int, str], dict[int, _Step]] = {}
    about = {
        (label, FINDINGS[finding.id].word)
        for finding in outcome.findings
        if finding.id in FINDINGS and FINDINGS[finding.id].word
        for label in finding.objects
    }
    words = {word for _, word in about}
    objects = outcome.machine.objects
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
    for finding in outcome.findings:
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


def _draw(program: Program, steps: list[_Step], outcome: Outcome) -> Iterator[str]:
    count = max(1, len(program.tasks))
    rows = list(_rows(program, steps, outcome))
    width = max((len(text) for _, text, _ in rows), default=0) + 2
    width = max(COLUMN_MIN, min(COLUMN_MAX, width))
    yield f"kernel {outcome.kernel}"
    for op in program.init:
        yield f"  before: {print_op(op)}"
    yield ""
    yield "".join(f"cpu{cpu}".ljust(width) for cpu in range(count)).rstrip()
    yield "".join("----".ljust(width) for _ in range(count)).rstrip()
    for cpu, text, comments in rows:
        lead = " " * (width * cpu)
        yield (lead + text).rstrip()
        for comment in comments:
            yield f"{lead}    // {comment}"
    yield ""
    for finding in outcome.findings:
        yield f"// {finding.id}: {finding.text}"
    if not outcome.findings:
        yield "// nothing found"
    conflict = conflict_of(outcome) if outcome.findings else None
    if conflict is not None:
        yield f"// {conflict.early_task} in {conflict.early}"
        yield f"// came before {conflict.late_task} in {conflict.late}, on {conflict.object}"
    if outcome.diverged is not None:
        turn = outcome.diverged
        yield f"// diverged at turn {turn.turn + 1} ({turn.expected}): {turn.actual}"


def _rows(
    program: Program, steps: list[_Step], outcome: Outcome
) -> Iterator[tuple[int, str, list[str]]]:
    """(column, text, comments), in time order."""
    starts = {switch.log_at: switch for switch in outcome.machine.switches if switch.entered > 0}
    stacks: dict[int, tuple[str, ...]] = {}
    ops = {number: iter(task) for number, task in enumerate(program.tasks, 1)}
    pending = sorted(starts)
    objects = outcome.machine.objects
    notes = [note for note in outcome.machine.notes if note.kind == "operation-begin"]
    for step in steps:
        while pending and pending[0] <= step.log_at:
            switch = starts[pending.pop(0)]
            if switch.preempted and switch.left > 0:
                yield switch.left - 1, f"--- left before {_next_step(switch)} ---", []
        while notes and notes[0].log_at <= step.log_at:
            note = notes.pop(0)
            if note.task > 0:
                op = next(ops[note.task])
                stacks[note.task] = ()
                yield note.task - 1, f"[{print_op(op)}]", []
        if not step.matters:
            continue
        old = stacks.get(step.task, ())
        common = 0
        while common < min(len(old), len(step.stack)) and old[common] == step.stack[common]:
            common += 1
        for depth in range(common, len(step.stack)):
            yield step.task - 1, f"{' ' * (depth + 1)}{step.stack[depth]}()", []
        stacks[step.task] = step.stack
        text = f"{' ' * (len(step.stack) + 1)}{_say(step, objects[step.operand].label())}"
        yield step.task - 1, text, step.comments
    for finding in outcome.findings:
        if outcome.machine.ending is not None and finding.id == outcome.machine.ending.id:
            task = outcome.machine.current.index
            if task > 0:
                yield task - 1, "", [finding.text]


def _next_step(switch: Switch) -> str:
    return "its next step" if switch.point is None else str(switch.point.primitive)


def _say(step: _Step, label: str) -> str:
    primitive = step.point.primitive
    results = ""
    if primitive.name.startswith(("test", "trylock", "spin_trylock", "down_read_trylock")):
        results = " = " + ("yes" if step.results[0] else "no")
    elif primitive.word == "vm_flags":
        locked = step.results[0] & VM_LOCKED
        results = " = VM_LOCKED" if locked else " = not VM_LOCKED"
    elif primitive.word in ("refcount", "mapcount") and step.results:
        results = f" = {step.results[0]}"
    return f"{primitive} {label}{results}"
