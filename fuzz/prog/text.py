"""Programs as text: the parser and the canonical printer. They are inverse; see FORMAT.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from fuzz.prog.prog import (
    BLOCKED,
    END,
    FILE_BYTES_MAX,
    FOR,
    FORMAT_VERSION,
    OPERATIONS_MAX,
    PAGES_MAX,
    PROCESSES,
    TASKS_MAX,
    THROUGH,
    TURNS_MAX,
    UNTIL,
    ZONES_MAX,
    ChoicesSpec,
    Expect,
    Op,
    ProgError,
    Program,
    TurnSpec,
)
from kstate.boot import MachineSize
from kstate.machine.machine import Fault
from kstate.patches import SpecError, parse_spec
from kstate.syscalls import (
    COUNT,
    FILE,
    FILE_PAGES_MAX,
    FILES,
    GROUP,
    KIND,
    KINDS,
    NODE,
    OPERATIONS,
    PAGE,
    PAGES,
    POOL,
    PROCESS,
    PROTECTION,
    PROTECTIONS,
    SLOT,
    SLOT_PAGES,
    SLOT_STRIDE,
    SLOTS_COUNT,
    Argument,
    slot_start,
)

SIZE_FIELDS = ("cpus", "zones", "pages", "pool")
WORDS: dict[str, Sequence[str]] = {
    KIND: tuple(KINDS),
    FILE: tuple(FILES),
    PROTECTION: PROTECTIONS,
    PROCESS: PROCESSES,
}
TURN = re.compile(
    r"(?:init|cpu([0-9]+))\s+(?:(until|through)\s+(.+?)(?:\s+#([0-9]+))?|for\s+([0-9]+)|to\s+(end))"
)
FAULT = re.compile(r"(init|cpu[0-9]{1,3})\s+(\w+)\s+#([0-9]{1,9})")
USER_FAULT = re.compile(r"(\S+)\s+(.+?)\s+#([0-9]{1,9})")
POINT = re.compile(r"[\w./+-]+:[\w<>]+ \w+\([\w.@:<>-]+\)")
ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


# ---- printing --------------------------------------------------------------------------------


def print_program(program: Program) -> str:
    """The canonical text."""
    lines = list(_lines(program))
    above: dict[int, list[str]] = {}
    after: dict[int, str] = {}
    for at, is_above, text in program.comments:
        if is_above:
            above.setdefault(at, []).append(text)
        else:
            after[at] = text
    out = []
    for at, line in enumerate(lines):
        indent = line[: len(line) - len(line.lstrip())]
        out += [f"{indent}# {text}".rstrip() for text in above.get(at, ())]
        out.append(f"{line}  # {after[at]}" if at in after else line)
    out += [f"# {text}".rstrip() for text in above.get(len(lines), ())]
    return "\n".join(out) + "\n"


def _lines(program: Program) -> Iterator[str]:
    size = program.size
    yield f"kfuzz {FORMAT_VERSION}"
    yield f"kernel: {parse_spec(program.kernel)}"
    yield f"machine: cpus={size.cpus} zones={size.zones} pages={size.pages} pool={size.pool}"
    if program.init:
        yield "init:"
        for op in program.init:
            yield f"  {print_op(op)}"
    for cpu, task in enumerate(program.tasks):
        yield f"cpu{cpu}:"
        for op in task:
            yield f"  {print_op(op)}"
    if program.yield_at:
        yield f"yield-at: {' '.join(program.yield_at)}"
    if program.faults:
        yield "faults:"
        for fault in program.faults:
            yield f"  {print_fault(fault)}"
    if program.schedule is not None:
        yield "schedule:"
        for turn in program.schedule:
            yield f"  {print_turn(turn)}"
    if program.choices is not None:
        draws = program.choices
        yield (
            f"choices: {draws.scheduler} | {' '.join(map(str, draws.schedule))} | "
            f"{' '.join(map(str, draws.faults))}"
        ).rstrip()
    for expect in program.expects:
        yield f"expect {parse_spec(expect.kernel)}: {print_expect(expect)}"


def print_op(op: Op) -> str:
    kinds = OPERATIONS[op.name].arguments
    words = [_print_argument(kind, value) for kind, value in zip(kinds, op.arguments, strict=True)]
    return " ".join([op.process, op.name, *words])


def _print_argument(kind: str, value: Argument) -> str:
    if kind == KIND or isinstance(value, str):
        return str(value)
    if kind == SLOT:
        return str(value // SLOT_STRIDE)
    if kind == PAGE:
        return f"{value // SLOT_STRIDE}.{value % SLOT_STRIDE}"
    if kind == COUNT:
        return f"+{value}"
    if kind == PAGES:
        return str(value)
    return f"{kind[:-1]}{value}"


def print_turn(turn: TurnSpec) -> str:
    if turn.kind == FOR:
        return f"{turn.task} for {turn.count}"
    if turn.kind == END:
        return f"{turn.task} to end"
    if turn.kind == BLOCKED:
        return f"{turn.task} until blocked"
    return f"{turn.task} {turn.kind} {turn.point} #{turn.count}"


def print_expect(expect: Expect) -> str:
    if not expect.id:
        return "clean"
    return f"not {expect.id}" if expect.absent else expect.id


# ---- parsing ---------------------------------------------------------------------------------


class _Line(NamedTuple):
    number: int
    column: int  # of the first character, from 1
    text: str
    indented: bool


def parse(source: str | bytes) -> Program:
    """Parse a program.

    Raises:
        ProgError: with line and column of what is wrong.
    """
    if isinstance(source, str):
        source = source.encode()
    if len(source) > FILE_BYTES_MAX:
        raise ProgError(f"{len(source)} bytes are too many for a program, {FILE_BYTES_MAX} at most")
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        line = source[: error.start].count(b"\n") + 1
        column = error.start - source.rfind(b"\n", 0, error.start)
        raise ProgError("not text: this byte is not UTF-8", line, column) from None
    return _Parser(text).program()


USER_TASKS_MAX = 1000


def parse_schedule(source: str) -> tuple[tuple[Fault, ...], tuple[TurnSpec, ...]]:
    """What fails, and the turns: a `schedule:`, perhaps after `faults:`, that stands alone, for
    programs that are no kernel's.

    Raises:
        ProgError: with line and column of what is wrong.
    """
    parser = _Parser(source)
    faults = parser.faults(USER_FAULT)
    turns = parser.turns(USER_TASKS_MAX, init_too=True)
    if turns is None:
        raise ProgError("expected 'schedule:'", 1, 1)
    parser.end()
    return faults, turns


def print_schedule(faults: Sequence[Fault], turns: Sequence[TurnSpec]) -> str:
    lines = ["faults:", *(f"  {print_fault(fault)}" for fault in faults)] if faults else []
    lines += ["schedule:", *(f"  {print_turn(turn)}" for turn in turns)]
    return "\n".join(lines) + "\n"


def print_fault(fault: Fault) -> str:
    """`cpu1 alloc_page #2`."""
    task, kind, number = fault
    return f"{task} {kind} #{number}"


class _Parser:
    """Reads significant lines in their fixed order, remembering comments on the way.

    unprinted: lines that the canonical text leaves out, the headings of empty sections."""

    def __init__(self, text: str) -> None:
        self.comments: list[tuple[int, bool, str]] = []
        self.unprinted: list[int] = []
        self.lines: list[_Line] = []
        self.at = 0
        for number, raw in enumerate(text.split("\n"), 1):
            body = raw.rstrip("\r")
            for column, char in enumerate(body, 1):
                if not char.isprintable() and char != "\t":
                    raise ProgError(f"unexpected character {char!r}", number, column)
            mark = _comment_start(body)
            comment = body[mark + 1 :].strip() if mark >= 0 else None
            significant = (body[:mark] if mark >= 0 else body).rstrip()
            if comment is not None:
                self.comments.append((len(self.lines), not significant.strip(), comment))
            if significant.strip():
                stripped = significant.lstrip()
                column = len(significant) - len(stripped) + 1
                self.lines.append(_Line(number, column, stripped, column > 1))

    def program(self) -> Program:
        self._header()
        kernel, place = self._field("kernel")
        spec = _spec(kernel, place)
        size = self._size()
        init = self._operations("init") or ()
        self._heads(init)
        tasks: list[tuple[Op, ...]] = []
        while (task := self._operations(f"cpu{len(tasks)}")) is not None:
            tasks.append(task)
        if len(tasks) > size.cpus:
            line = self.lines[self.at - 1]
            raise ProgError(f"{len(tasks)} tasks on {size.cpus} cpus", line.number, line.column)
        yield_at: tuple[str, ...] = ()
        if self._is("yield-at:"):
            yield_at = tuple(self._field("yield-at")[0].split())
            self._heads(yield_at)
        faults = self.faults(FAULT)
        schedule = self.turns(len(tasks))
        choices = self._choices() if schedule is None else None
        expects = []
        while self._is("expect "):
            expects.append(self._expect())
        self.end()
        program = Program(
            spec, size, init, tuple(tasks), yield_at, faults, schedule, choices, tuple(expects)
        )
        return replace(program, comments=tuple(self._placed(*comment) for comment in self.comments))

    def _heads(self, section: Sequence[object]) -> None:
        """The line just read is the heading of this section, if that is empty."""
        if not section and self.at and self.lines[self.at - 1].text.endswith(":"):
            self.unprinted.append(self.at - 1)

    def _placed(self, at: int, above: bool, text: str) -> tuple[int, bool, str]:
        """Where a comment stands in the canonical text."""
        passed = sum(line < at for line in self.unprinted)
        return at - passed, above or at in self.unprinted, text

    def end(self) -> None:
        extra = self._peek()
        if extra is not None:
            raise ProgError(f"unexpected {_first_word(extra.text)!r}", extra.number, extra.column)

    # -- lines

    def _peek(self) -> _Line | None:
        return self.lines[self.at] if self.at < len(self.lines) else None

    def _next(self, wanted: str) -> _Line:
        line = self._peek()
        if line is None:
            last = self.lines[-1] if self.lines else None
            number = last.number + 1 if last else 1
            raise ProgError(f"the program ends where {wanted} is expected", number, 1)
        self.at += 1
        return line

    def _is(self, start: str) -> bool:
        line = self._peek()
        return line is not None and not line.indented and line.text.startswith(start)

    def _field(self, name: str) -> tuple[str, _Line]:
        line = self._next(f"'{name}:'")
        if line.indented or not line.text.startswith(f"{name}:"):
            raise ProgError(
                f"expected '{name}:', found {_first_word(line.text)!r}", line.number, line.column
            )
        value = line.text[len(name) + 1 :]
        stripped = value.strip()
        column = len(name) + 2 + len(value) - len(value.lstrip())
        return stripped, _Line(line.number, column, stripped, False)

    def _indented(self) -> Iterator[_Line]:
        while (line := self._peek()) is not None and line.indented:
            self.at += 1
            yield line

    # -- sections

    def _header(self) -> None:
        line = self._next(f"'kfuzz {FORMAT_VERSION}'")
        words = line.text.split()
        if words[0] != "kfuzz" or line.indented:
            raise ProgError(
                f"not a program: it must begin with 'kfuzz {FORMAT_VERSION}'", line.number, 1
            )
        if words[1:] != [str(FORMAT_VERSION)]:
            version = " ".join(words[1:]) or "missing"
            raise ProgError(
                f"format version {version}; this kfuzz reads {FORMAT_VERSION}", line.number, 7
            )

    def _size(self) -> MachineSize:
        value, place = self._field("machine")
        given: dict[str, int] = {}
        for match in re.finditer(r"\S+", value):
            name, equals, number = match.group().partition("=")
            column = place.column + match.start()
            if name not in SIZE_FIELDS or not equals or name in given:
                raise ProgError(
                    f"expected {', '.join(f'{f}=N' for f in SIZE_FIELDS)} once each, "
                    f"found {match.group()!r}",
                    place.number,
                    column,
                )
            given[name] = _number(number, place.number, column + len(name) + 1)
        size = MachineSize(**{**{f: getattr(MachineSize(), f) for f in SIZE_FIELDS}, **given})
        for name, least, most in (
            ("cpus", 1, TASKS_MAX),
            ("zones", 1, ZONES_MAX),
            ("pages", size.zones, PAGES_MAX),
            ("pool", 0, size.pages // max(1, size.zones)),
        ):
            if not least <= getattr(size, name) <= most:
                raise ProgError(
                    f"{name}={getattr(size, name)} is not between {least} and {most}",
                    place.number,
                    place.column,
                )
        return size

    def _operations(self, section: str) -> tuple[Op, ...] | None:
        if not self._is(f"{section}:"):
            return None
        rest, place = self._field(section)
        if rest:
            raise ProgError(
                f"operations stand on lines of their own, below '{section}:'",
                place.number,
                place.column,
            )
        ops = []
        for line in self._indented():
            ops.append(_op(line))
            if len(ops) > OPERATIONS_MAX:
                raise ProgError(
                    f"more than {OPERATIONS_MAX} operations in '{section}:'",
                    line.number,
                    line.column,
                )
        return tuple(ops)

    def faults(self, pattern: re.Pattern[str]) -> tuple[Fault, ...]:
        if not self._is("faults:"):
            return ()
        self._field("faults")
        faults = []
        for line in self._indented():
            match = pattern.fullmatch(line.text)
            if match is None or int(match[3]) < 1:
                raise ProgError(
                    "expected a task, what fails and at which call: 'cpu1 alloc_page #2'",
                    line.number,
                    line.column,
                )
            faults.append((match[1], match[2], int(match[3])))
        self._heads(faults)
        return tuple(faults)

    def turns(self, tasks_count: int, init_too: bool = False) -> tuple[TurnSpec, ...] | None:
        if not self._is("schedule:"):
            return None
        self._field("schedule")
        turns = []
        for line in self._indented():
            turn = _turn(line)
            if turn.cpu >= tasks_count:
                raise ProgError(f"there is no {turn.task}", line.number, line.column)
            if turn.cpu < 0 and not init_too:
                raise ProgError("init is over when turns begin", line.number, line.column)
            turns.append(turn)
            if len(turns) > TURNS_MAX:
                raise ProgError(f"more than {TURNS_MAX} turns", line.number, line.column)
        return tuple(turns)

    def _choices(self) -> ChoicesSpec | None:
        if not self._is("choices:"):
            return None
        value, place = self._field("choices")
        parts = value.split("|")
        if len(parts) != 3:
            raise ProgError("expected 'SCHEDULER | ints | ints'", place.number, place.column)
        streams = []
        at = place.column + len(parts[0]) + 1
        for part in parts[1:]:
            streams.append(
                tuple(
                    _number(match.group(), place.number, at + match.start())
                    for match in re.finditer(r"\S+", part)
                )
            )
            at += len(part) + 1
        return ChoicesSpec(parts[0].strip(), streams[0], streams[1])

    def _expect(self) -> Expect:
        line = self._next("'expect'")
        match = re.fullmatch(r"expect\s+([^\s:]+(?::[^\s:]+)*?):\s+(?:(not)\s+)?(\S+)", line.text)
        if match is None:
            raise ProgError(
                "expected 'expect SPEC: ID', 'expect SPEC: not ID' or 'expect SPEC: clean'",
                line.number,
                line.column,
            )
        spec = _spec(match[1], _Line(line.number, line.column + match.start(1), match[1], False))
        column = line.column + match.start(3)
        if not ID.fullmatch(match[3]):
            raise ProgError(f"{match[3]!r} is not a finding id", line.number, column)
        if match[3] == "clean":
            if match[2]:
                raise ProgError("'not clean' says nothing", line.number, column)
            return Expect(spec, "", True)
        return Expect(spec, match[3], bool(match[2]))


def _comment_start(body: str) -> int:
    """Where a comment begins: a # at the start or after a space, and not '#3' of a turn."""
    match = re.search(r"(?:^|(?<=\s))#(?!\d+(?:\s|$))", body)
    return match.start() if match else -1


def _first_word(text: str) -> str:
    return text.split()[0][:40]


def _number(text: str, line: int, column: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ProgError(f"expected a number, found {text[:40]!r}", line, column)
    return int(text)


def _spec(text: str, place: _Line) -> str:
    try:
        return parse_spec(text).text
    except SpecError as error:
        raise ProgError(str(error), place.number, place.column + error.at) from None


def _op(line: _Line) -> Op:
    words = [
        (match.group(), line.column + match.start()) for match in re.finditer(r"\S+", line.text)
    ]
    process, column = words[0]
    if len(process) != 1 or process not in PROCESSES:
        raise ProgError(
            f"expected a process, one of {' '.join(PROCESSES)}, found {process[:40]!r}",
            line.number,
            column,
        )
    if len(words) < 2:
        raise ProgError("expected an operation", line.number, line.column + len(line.text))
    name, column = words[1]
    operation = OPERATIONS.get(name)
    if operation is None:
        raise ProgError(
            f"unknown operation {name[:40]!r}; 'kfuzz ops' lists them", line.number, column
        )
    given = words[2:]
    if len(given) != len(operation.arguments):
        usage = " ".join([name, *operation.arguments])
        raise ProgError(f"usage: {usage}", line.number, column)
    arguments = tuple(
        _argument(kind, word, line.number, at)
        for kind, (word, at) in zip(operation.arguments, given, strict=True)
    )
    return Op(process, name, arguments)


def _argument(kind: str, word: str, line: int, column: int) -> Argument:
    if kind in WORDS:
        if word not in WORDS[kind]:
            wanted = ", ".join(WORDS[kind])
            raise ProgError(f"expected one of {wanted}, found {word[:40]!r}", line, column)
        return word
    if kind == PAGES:
        pages = _number(word, line, column)
        if pages > FILE_PAGES_MAX:
            raise ProgError(f"a file has at most {FILE_PAGES_MAX} pages", line, column)
        return pages
    if kind in (SLOT, PAGE):
        slot, dot, page = word.partition(".")
        if kind == PAGE and not dot:
            raise ProgError(f"expected a page, such as 0.1, found {word!r}", line, column)
        if kind == SLOT and dot:
            raise ProgError(f"expected a slot, such as 0, found {word!r}", line, column)
        start = _number(slot, line, column)
        offset = _number(page, line, column + len(slot) + 1) if dot else 0
        if start >= SLOTS_COUNT or offset >= SLOT_PAGES:
            raise ProgError(
                f"slots are 0 to {SLOTS_COUNT - 1}, their pages 0 to {SLOT_PAGES - 1}", line, column
            )
        return slot_start(start) + offset
    prefix = {COUNT: "+", NODE: "node", POOL: "pool", GROUP: "memcg"}[kind]
    if not word.startswith(prefix):
        raise ProgError(f"expected {kind}, found {word!r}", line, column)
    value = _number(word[len(prefix) :], line, column + len(prefix))
    if kind == COUNT and not 1 <= value <= SLOT_PAGES:
        raise ProgError(f"a count is 1 to {SLOT_PAGES}", line, column)
    return value


def _turn(line: _Line) -> TurnSpec:
    match = TURN.fullmatch(line.text)
    if match is None:
        raise ProgError(
            "expected 'cpuN until POINT #K', 'cpuN through POINT #K', 'cpuN for N', "
            "'cpuN until blocked' or 'cpuN to end'",
            line.number,
            line.column,
        )
    cpu = -1 if match[1] is None else _number(match[1], line.number, line.column + 3)
    if match[6]:
        return TurnSpec(cpu, END)
    if match[5]:
        count = _number(match[5], line.number, line.column + match.start(5))
        if count < 1:
            raise ProgError("a turn has at least one step", line.number, line.column)
        return TurnSpec(cpu, FOR, "", count)
    kind, point = match[2], " ".join(match[3].split())
    if kind == UNTIL and point == "blocked" and match[4] is None:
        return TurnSpec(cpu, BLOCKED)
    if not POINT.fullmatch(point):
        raise ProgError(
            f"{point[:60]!r} is not a point; 'kfuzz points' lists them",
            line.number,
            line.column + match.start(3),
        )
    count = _number(match[4] or "1", line.number, line.column)
    if count < 1:
        raise ProgError("arrivals count from 1", line.number, line.column + match.start(4))
    return TurnSpec(cpu, UNTIL if kind == UNTIL else THROUGH, point, count)
