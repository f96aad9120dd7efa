"""The build. `KSTATE_COMPILE=1 pip install .` compiles kstate with mypyc; else it stays Python.

A yield point is named by the function that uses a primitive. Python code is asked for its frame;
compiled code has none, so a copy of the model is compiled in which each function says who runs:

    def f(k: Kernel) -> int:           def f(k: Kernel) -> int:
                                           _callers.begun(_F1)
                                           _returned: int
        if g(k):                           if g(k):
            return 1                           _returned = ( 1); _callers.ended(); return _returned

The machine and the primitives (structs.py, pageflags.py, mm/debug.py) say nothing: the innermost
function that did is the one that uses a primitive. An exception ends the run, and with it whatever
was under way. The sources are installed too, unchanged; Python prefers what is compiled.
"""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
COPY = ROOT / "build" / "compiled"
# What only re-exports, what runs once a program and not once a step, and what is pickled.
INTERPRETED = ("__init__.py", "patchview.py", "boot.py", "endings.py")
# Primitives, and checks that name their caller: they say nothing.
PRIMITIVES = ("flags.py", "patches.py", "structs.py", "pageflags.py", "mm/debug.py")


class Announcer(ast.NodeVisitor):
    """Finds the edits that make each function of a file say when it begins and when it returns.

    edits: (line from 0, byte from, byte to, text that goes there). names: of the functions."""

    def __init__(self) -> None:
        self.edits: list[tuple[int, int, int, str]] = []
        self.names: list[str] = []
        self._returns = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        assert node.returns is not None
        around, self._returns = self._returns, ast.unparse(node.returns)
        body = node.body if ast.get_docstring(node) is None else node.body[1:]
        indent = "\n" + " " * node.body[0].col_offset
        begin = self._begun(node.name) + indent
        if self._returns != "None":
            begin += f"_returned: {self._returns}{indent}"
        self._edit(body[0].lineno, body[0].col_offset, 0, begin)
        self.generic_visit(node)
        if not isinstance(body[-1], ast.Return):
            self._after(body[-1], f"{indent}_callers.ended()")
        self._returns = around

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self._edit(node.lineno, node.col_offset, 0, "_callers.ended(); ")
        else:
            self._edit(node.lineno, node.col_offset, len("return"), "_returned = (")
            self.generic_visit(node)
            self._after(node, "); _callers.ended(); return _returned")

    def visit_Lambda(self, node: ast.Lambda) -> None:
        begun = self._begun("<lambda>")
        self._edit(node.body.lineno, node.body.col_offset, 0, f"_callers.result({begun}, ")
        self.generic_visit(node)
        self._after(node.body, ")")

    def _begun(self, name: str) -> str:
        self.names.append(name)
        return f"_callers.begun(_F{len(self.names)})"

    def _edit(self, line: int, column: int, length: int, text: str) -> None:
        self.edits.append((line - 1, column, column + length, text))

    def _after(self, node: ast.stmt | ast.expr, text: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        self._edit(node.end_lineno, node.end_col_offset, 0, text)


def announced(source: str, file: str) -> str:
    """The source of a model file in which every function says who runs."""
    announcer = Announcer()
    announcer.visit(ast.parse(source))
    lines = [line.encode() for line in source.split("\n")]
    # From the end, so that places stay true; at one place what was found first comes first.
    for line, start, end, text in sorted(announcer.edits, key=lambda edit: edit[:2])[::-1]:
        lines[line] = lines[line][:start] + text.encode() + lines[line][end:]
    more = ["from typing import Final as _Final", "import kstate.machine.callers as _callers"]
    for number, name in enumerate(announcer.names, 1):
        function = f"_callers.Function({f'<compiled>/kstate/{file}'!r}, {name!r})"
        more.append(f"_F{number}: _Final = {function}")
    return b"\n".join(lines).decode() + "\n".join(more) + "\n"


def copy_to_compile() -> list[str]:
    """Make the copy. Returns its files that are to be compiled, relative to it."""
    shutil.rmtree(COPY, ignore_errors=True)
    chosen = []
    for path in sorted((ROOT / "kstate").rglob("*.py")):
        file = path.relative_to(ROOT / "kstate").as_posix()
        source = path.read_text()
        if file == "machine/compiled.py":
            source = source.replace("COMPILED: Final = False", "COMPILED: Final = True")
        elif path.name not in INTERPRETED:
            if not file.startswith("machine/") and file not in PRIMITIVES:
                source = announced(source, file)
        target = COPY / "kstate" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source)
        if path.name not in INTERPRETED:
            chosen.append(f"kstate/{file}")
    return chosen


def extensions() -> list[object]:
    if not os.environ.get("KSTATE_COMPILE"):
        return []
    from mypyc.build import mypycify

    files = copy_to_compile()
    os.chdir(COPY)  # there the modules are called kstate.*, and so mypy finds no others
    try:
        return mypycify(
            ["--strict", "--disable-error-code=func-returns-value", *files],
            opt_level="3",
            debug_level="0",
            target_dir=str(COPY / "c"),
        )
    finally:
        os.chdir(ROOT)


setup(ext_modules=extensions())
