"""The build. `KSTATE_COMPILE=1 pip install .` compiles kstate with mypyc; else it stays Python.

A yield point is named by the function that uses a primitive. Python code is asked for its frame;
compiled code has none, so a copy of the model is compiled in which each function says who runs:

    def f(k: Kernel) -> int:           def f(k: Kernel) -> int:
                                           _callers.begun(_F1)
                                           _returned: int
        if g(k):                           if g(k):
            return 1                           _returned = ( 1); _callers.ended(); return _returned

and in which what a module assigns once is Final: compiled code then need not look it up.
The machine and the primitives (structs.py, pageflags.py, mm/debug.py) say nothing: the innermost
function that did is the one that uses a primitive. An exception ends the run, and with it whatever
was under way. The sources are installed too, unchanged; Python prefers what is compiled.
"""

from __future__ import annotations

import ast
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from setuptools import setup

Edit = tuple[int, int, int, str]  # line from 0, byte from, byte to, the text that goes there
ROOT = Path(__file__).resolve().parent
COPY = ROOT / "build" / "compiled"
# Not fuzz/oracles: mypyc has no class attribute that a Protocol can ask of an instance, their ids.
COMPILED = ("kstate/", "fuzz/schedulers/")
# What only re-exports, what runs once a program and not once a step, and what is pickled.
INTERPRETED = ("__init__.py", "patchview.py", "boot.py", "endings.py", "spelling.py")
# The machine, the primitives, and checks that name their caller: they do not say that they run.
SILENT = (
    "fuzz/",
    "kstate/machine/",
    "kstate/flags.py",
    "kstate/patches.py",
    "kstate/structs.py",
    "kstate/pageflags.py",
    "kstate/mm/debug.py",
)


class Announcer(ast.NodeVisitor):
    """Finds the edits that make each function of a file say when it begins and when it returns.

    names: of the functions, in the order of their numbers."""

    def __init__(self) -> None:
        self.edits: list[Edit] = []
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


def assigned_once(module: ast.Module) -> list[Edit]:
    """Edits that make Final what the module assigns once, type aliases apart."""
    edits: list[Edit] = []
    names = [
        node.id
        for node in ast.walk(module)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    for node in module.body:
        if not isinstance(node, ast.Assign) or alias(node):
            continue
        [target] = node.targets
        assert target.end_col_offset is not None
        at, start, end = target.lineno - 1, target.col_offset, target.end_col_offset
        if isinstance(target, ast.Name) and names.count(target.id) == 1:
            edits.append((at, end, end, ": _Final"))
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            assert node.value.end_col_offset is not None
            pairs = zip(target.elts, node.value.elts, strict=True)
            each = [f"{ast.unparse(name)}: _Final = {ast.unparse(value)}" for name, value in pairs]
            edits.append((at, start, node.value.end_col_offset, "; ".join(each)))
    return edits


def alias(node: ast.Assign) -> bool:
    """A type by its look: `Fault = tuple[str, int]`, `Code = CodeType | Function`, a TypeVar."""
    if isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func) == "TypeVar"
    name = ast.unparse(node.targets[0])
    return isinstance(node.value, ast.Subscript) or not ("_" in name or name.isupper())


def announced(source: str, file: str) -> str:
    """The source of a model file in which every function says who runs."""
    announcer = Announcer()
    announcer.visit(ast.parse(source))
    more = []
    for number, name in enumerate(announcer.names, 1):
        function = f"_callers.Function({f'<compiled>/{file}'!r}, {name!r})"
        more.append(f"_F{number}: _Final = {function}\n")
    imports = "import kstate.machine.callers as _callers\n"
    return edited(source, announcer.edits, imports) + "".join(more)


def edited(source: str, edits: list[Edit], imports: str = "") -> str:
    """The source after the edits, and with what is assigned once Final."""
    module = ast.parse(source)
    first = next(node for node in module.body if not is_docstring_or_future(node))
    imports += "from typing import Final as _Final\n"
    edits = [*edits, *assigned_once(module), (first.lineno - 1, 0, 0, imports)]
    lines = [line.encode() for line in source.split("\n")]
    # From the end, so that places stay true; at one place what was found first comes first.
    for line, start, end, text in sorted(edits, key=lambda edit: edit[:2])[::-1]:
        lines[line] = lines[line][:start] + text.encode() + lines[line][end:]
    return b"\n".join(lines).decode()


def is_docstring_or_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) or (
        isinstance(node, ast.ImportFrom) and node.module == "__future__"
    )


def copy_to_compile() -> list[str]:
    """Make the copy. Returns its files that are to be compiled, relative to it."""
    shutil.rmtree(COPY, ignore_errors=True)
    chosen = []
    for path in sorted([*ROOT.glob("kstate/**/*.py"), *ROOT.glob("fuzz/**/*.py")]):
        file = path.relative_to(ROOT).as_posix()
        source = path.read_text()
        if file == "kstate/machine/compiled.py":
            source = source.replace("COMPILED: Final = False", "COMPILED: Final = True")
            chosen.append(file)
        elif file.startswith(COMPILED) and not file.endswith(INTERPRETED):
            source = edited(source, []) if file.startswith(SILENT) else announced(source, file)
            chosen.append(file)
        target = COPY / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source)
    return chosen


def extensions() -> list[object]:
    from mypyc.build import mypycify

    files = copy_to_compile()
    os.chdir(COPY)  # there the modules are called kstate.*, and so mypy finds no others
    try:
        return mypycify(
            ["--config-file=", "--strict", "--disable-error-code=func-returns-value", *files],
            opt_level="3",
            debug_level="0",
            target_dir=str(COPY / "c"),
        )
    finally:
        os.chdir(ROOT)


COMPILING = bool(os.environ.get("KSTATE_COMPILE"))
setup(
    # pip asks for the requirements first, when mypy may not be there yet.
    ext_modules=extensions() if COMPILING and find_spec("mypyc") else [],
    setup_requires=["mypy[mypyc]>=1.11,<3", "types-greenlet>=3,<4"] if COMPILING else [],
)
