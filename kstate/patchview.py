"""The series as it would read without toggles: fold them one way, fold them the other, compare.

Folding resolves each `if P10 in k.patches:` for one set of toggles: the branch taken is dedented
into its place, the other dropped, and everything else stays byte for byte: comments, docstrings
(their `Patches:` lines too) and imports. Imports could be thinned out to what is still used, as a
linter would; they are left, so that the rule is one sentence, what was folded still runs, and no
hunk is about anything the kernel's own patch has no counterpart for. A block that loses all it had
keeps a `pass`.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kstate.patches import (
    BY_NAME,
    BY_TOGGLE,
    SERIES,
    KernelSpec,
    Patch,
    SpecError,
    own_toggle,
    parse_spec,
)

KSTATE = Path(__file__).parent
CONTEXT_LINES = 3
INDENT = 4
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")


@dataclass(frozen=True)
class FileDiff:
    """One file of a patch. functions: those its hunks are in, in order. diff: unified."""

    file: str
    functions: tuple[str, ...]
    diff: str


@dataclass(frozen=True)
class PatchView:
    """A patch in our words. before, after: the kernels compared; None where nothing was.
    note: why there is nothing to compare, or an empty string."""

    patch: Patch
    before: KernelSpec | None
    after: KernelSpec | None
    files: tuple[FileDiff, ...]
    note: str = ""

    def __str__(self) -> str:
        lines = [f"{self.patch.name}: {self.patch.subject}"]
        if self.patch.mail:
            lines.append(self.patch.mail)
        if self.before is not None:
            lines.append(f"{self.before} -> {self.after}")
        if self.note:
            lines.append(self.note)
        return "\n".join(lines) + "\n" + "".join("\n" + file.diff for file in self.files)


def view(name: str, base: str | None = None) -> PatchView:
    """What a patch changes: of the series on top of those before it, of all else by itself.

    Args:
        name: as in a kernel spec, `P10`, `70feee0e1ef3`, `mutant:7c`, or `x:mine`.
        base: the kernel to see it on. By default v4.3 with the series up to the patch; for what is
            not of the series, v4.4, or v4.3 where it is not there on v4.4.
    Raises:
        SpecError: no such patch, not modelled yet, or not on that kernel.
    """
    patch = own_toggle(name) if name.startswith("x:") else BY_NAME.get(name)
    if patch is None:
        raise SpecError(f"unknown patch {name!r}; known: {', '.join(BY_NAME)}")
    if not patch.behaviour:
        return PatchView(patch, None, None, (), "text only: no line of the model is about it")
    if not patch.modelled:
        raise SpecError(f"{name} is not modelled yet")
    if base is not None:
        return _compare(patch, f"{base}-{name}", f"{base}+{name}")
    if patch.toggle in SERIES:
        earlier = [BY_TOGGLE[toggle] for toggle in SERIES[: SERIES.index(patch.toggle)]]
        so_far = "v4.3" + "".join(f"+{p.name}" for p in earlier if p.modelled)
        return _compare(patch, so_far, f"{so_far}+{name}")
    refused: SpecError | None = None
    seen: PatchView | None = None
    for base in ("v4.4", "v4.3"):
        try:
            seen = _compare(patch, f"{base}-{name}", f"{base}+{name}")
        except SpecError as error:
            refused = error
            continue
        if seen.files:
            return seen
    if seen is None:
        assert refused is not None
        raise refused
    return seen


def _compare(patch: Patch, before: str, after: str) -> PatchView:
    one, other = parse_spec(before), parse_spec(after)
    files = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(KSTATE.parent).as_posix()
        diff = _file_diff(name, fold(text, one.toggles), fold(text, other.toggles))
        if diff.diff:
            files.append(diff)
    return PatchView(patch, one, other, tuple(files), "" if files else "no difference there")


def sources() -> list[Path]:
    """Every file of the model that has a toggle, by name."""
    return [path for path in sorted(KSTATE.rglob("*.py")) if _has_toggle(path.read_text("utf-8"))]


def _has_toggle(text: str) -> bool:
    return "in k.patches:" in text and any(toggle_of(node) for node in ast.walk(ast.parse(text)))


# ---- folding -------------------------------------------------------------------------------------


def fold(text: str, toggles: frozenset[str]) -> str:
    """The source with each toggle resolved: in `toggles` or not."""
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    folding = _Folding(lines, toggles)
    folding.block(tree.body, 0)
    in_strings = _lines_in_strings(tree)
    out = []
    for number, line in enumerate(lines, 1):
        if number in folding.dropped:
            if number in folding.passes:
                out.append(" " * folding.passes[number] + "pass\n")
        elif number in in_strings:
            out.append(line)
        else:
            indent = INDENT * folding.levels.get(number, 0)
            out.append(line[indent:] if line.strip() else line)
    return "".join(out)


def toggle_of(node: ast.AST) -> tuple[str, bool] | None:
    """(toggle, is the body for when it is on) of `if NAME in k.patches:`; None for all else."""
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
        return None
    test = node.test
    if len(test.ops) != 1 or ast.unparse(test.comparators[0]) != "k.patches":
        return None
    if isinstance(test.left, ast.Name):
        toggle = test.left.id
    elif isinstance(test.left, ast.Constant) and isinstance(test.left.value, str):
        toggle = test.left.value  # a toggle of one's own
    else:
        return None
    if isinstance(test.ops[0], ast.In):
        return toggle, True
    return (toggle, False) if isinstance(test.ops[0], ast.NotIn) else None


def _lines_in_strings(tree: ast.AST) -> frozenset[int]:
    """Lines that begin inside a string: no indentation of theirs is the program's."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
        ):
            inside.update(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    return frozenset(inside)


class _Folding:
    """What becomes of each line, numbered from 1 as the parser does.

    dropped: it goes. levels: by how many levels it moves to the left. passes: a dropped line where
    a `pass` must stand, and its indentation."""

    def __init__(self, lines: list[str], toggles: frozenset[str]) -> None:
        self.lines = lines
        self.toggles = toggles
        self.dropped: set[int] = set()
        self.levels: dict[int, int] = {}
        self.passes: dict[int, int] = {}

    def block(self, body: list[ast.stmt], level: int) -> bool:
        """Fold what is in a block that has moved `level` levels. Is any statement left?"""
        left = False
        for statement in body:
            if self._statement(statement, level):
                left = True
        return left

    def _statement(self, statement: ast.stmt, level: int) -> bool:
        toggle = toggle_of(statement)
        if toggle is None:
            for body in _bodies(statement):
                if not self.block(body, level):
                    self.passes[body[0].lineno] = body[0].col_offset - INDENT * level
            return True
        assert isinstance(statement, ast.If)
        first, end = statement.lineno, self._end(statement)
        middle = self._else_line(statement) if statement.orelse else end + 1
        self.dropped |= {first, middle} if statement.orelse else {first}
        if (toggle[0] in self.toggles) == toggle[1]:
            taken, kept, gone = statement.body, (first + 1, middle), (middle + 1, end + 1)
        else:
            taken, kept, gone = statement.orelse, (middle + 1, end + 1), (first + 1, middle)
        self.dropped.update(range(*gone))
        for number in range(*kept):
            self.levels[number] = level + 1
        if self.block(taken, level + 1):
            return True
        self.dropped.update(range(*kept))
        if first > 1 and not self.lines[first - 2].strip():
            while end < len(self.lines) and not self.lines[end].strip():
                end += 1  # one blank line is enough where nothing is left between two
                self.dropped.add(end)
        return False

    def _end(self, statement: ast.If) -> int:
        """Its last line, counting comments below that are indented like its branches."""
        last = end = statement.end_lineno or statement.lineno
        for number, line in enumerate(self.lines[last:], last + 1):
            inside = len(line) - len(line.lstrip()) > statement.col_offset
            if line.strip() and not (inside and line.lstrip().startswith("#")):
                break
            end = number if line.strip() else end
        return end

    def _else_line(self, statement: ast.If) -> int:
        """The line of its `else:`. Comments between the branches belong to the first."""
        for number in range(statement.body[-1].end_lineno or 0, statement.orelse[0].lineno):
            if self.lines[number - 1].strip() == "else:":
                return number
        raise ValueError(f"line {statement.lineno}: a toggle takes else:, no elif and no comment")


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks inside a compound statement."""
    for name in ("body", "orelse", "finalbody"):
        if getattr(statement, name, None):
            yield getattr(statement, name)
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body


# ---- the diff ------------------------------------------------------------------------------------


def _file_diff(name: str, before: str, after: str) -> FileDiff:
    """A unified diff whose hunks say which function their first change is in."""
    one, other = before.splitlines(keepends=True), after.splitlines(keepends=True)
    lines = list(difflib.unified_diff(one, other, f"a/{name}", f"b/{name}", n=CONTEXT_LINES))
    old, new = _functions(before), _functions(after)
    functions: list[str] = []
    for number, line in enumerate(lines):
        hunk = _HUNK.match(line)
        if hunk is not None:
            function = _first_changed(lines[number + 1 :], hunk, old, new)
            if function:
                functions.append(function)
                lines[number] = f"{line.rstrip()} {function}()\n"
    return FileDiff(name, tuple(dict.fromkeys(functions)), "".join(lines))


def _first_changed(
    lines: list[str], hunk: re.Match[str], old: dict[int, str], new: dict[int, str]
) -> str:
    for skipped, line in enumerate(lines):
        if line[0] == "-":
            return old.get(int(hunk[1]) + skipped, "")
        if line[0] == "+":
            return new.get(int(hunk[2]) + skipped, "")
    return ""


def _functions(text: str) -> dict[int, str]:
    """Line number -> the function it is in, the outermost one, as in C."""
    found: dict[int, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found[number] = node.name
    return found
