"""Mechanical mutants of the model: small mistakes of the kind people make in kernel code.

They are made from the syntax alone, by six operators, and chosen by a seed; nothing here knows what
a function does, or whether a mutant can be found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

UNLOCKS = {
    "spin_unlock": "spin_lock",
    "spin_unlock_irq": "spin_lock_irq",
    "unlock_page": "lock_page",
    "up_read": "down_read",
    "up_write": "down_write",
    "mutex_unlock": "mutex_lock",
}
TRYLOCKS = frozenset(
    {"trylock_page", "down_read_trylock", "down_write_trylock", "spin_trylock", "mutex_trylock"}
)
REACHED = "kstate.machine.reached"  # a module that the mutated tree has besides
OPERATORS = ("unlock moved up", "lock dropped", "recheck removed", "trylock ignored",
             "stores swapped", "test negated")  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """operator: one of OPERATORS. file: relative to kstate. line, function: where. was: the source
    there. source: the file's, mutated; when the place is reached it says so, see REACHED."""

    operator: str
    file: str
    line: int
    function: str
    was: str
    source: str

    def __str__(self) -> str:
        return f"{self.operator}: {self.file}:{self.line} {self.function}: {self.was}"


def chosen(folder: Path, count: int, seed: str) -> list[Mutant]:
    """So many mutants of the files in a folder, in equal shares an operator as far as there are."""
    every = [
        (operator, path, number)
        for path in sorted(folder.glob("*.py"))
        for number, (operator, _, _) in enumerate(_places(ast.parse(path.read_text())))
    ]
    rng = Random(seed)
    piles = []
    for operator in OPERATORS:
        pile = [place for place in every if place[0] == operator]
        rng.shuffle(pile)
        piles.append(pile)
    picked: list[tuple[str, Path, int]] = []
    while len(picked) < count and any(piles):
        picked += [pile.pop() for pile in piles if pile]
    return [_mutant(path, number) for _, path, number in picked[:count]]


def _mutant(path: Path, number: int) -> Mutant:
    """The one at that place of a file."""
    text = path.read_text()
    tree = ast.parse(text)
    operator, function, change = list(_places(tree))[number]
    node = change()
    tree.body.insert(_after_docstring(tree), ast.parse(f"import {REACHED} as _reached").body[0])
    was = (ast.get_source_segment(text, node) or "").split("\n")[0].strip()
    source = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    return Mutant(operator, f"mm/{path.name}", node.lineno, function, was, source)


class _Place:
    """A change that can be made to a tree; returns the node it was made at."""

    def __init__(self, kind: str, body: list[ast.stmt], at: int, function: ast.FunctionDef) -> None:
        self.kind = kind
        self.body = body
        self.at = at
        self.function = function

    def __call__(self) -> ast.stmt:
        node = self.body[self.at]
        if self.kind in ("unlock moved up", "stores swapped"):
            self.body[self.at - 1 : self.at + 1] = [_hit(), node, self.body[self.at - 1]]
        elif self.kind == "lock dropped":
            self._drop(node)
        else:
            assert isinstance(node, ast.If)
            test = node.test
            if self.kind == "test negated":
                node.test = ast.UnaryOp(ast.Not(), test)
            elif self.kind == "recheck removed":
                node.test = ast.Constant(False)
            else:
                node.test = _ignoring_trylocks(test)
            self.body.insert(self.at, _hit())
        return node

    def _drop(self, lock: ast.stmt) -> None:
        call = _call(lock)
        assert call is not None
        ends = {ast.unparse(call).replace(_name(call), end, 1) for end in UNLOCKS
                if UNLOCKS[end] == _name(call)}  # fmt: skip
        for body in _bodies(self.function):
            for at, statement in enumerate(body):
                if statement is lock or ast.unparse(statement) in ends:
                    body[at] = _hit()


def _places(tree: ast.Module) -> Iterator[tuple[str, str, _Place]]:
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        seen: set[str] = set()
        for body in _bodies(function):
            for at, statement in enumerate(body):
                for kind in _kinds(body, at, statement, seen, function):
                    yield kind, function.name, _Place(kind, body, at, function)


def _kinds(
    body: list[ast.stmt], at: int, statement: ast.stmt, seen: set[str], function: ast.FunctionDef
) -> Iterator[str]:
    call = _call(statement)
    if call is not None and _name(call) in UNLOCKS and at and _is_plain(body[at - 1]):
        yield "unlock moved up"
    if call is not None and _name(call) in UNLOCKS.values() and _has_unlock(function, call):
        yield "lock dropped"
    if at and _stores(statement) and _stores(body[at - 1]):
        yield "stores swapped"
    if isinstance(statement, ast.If):
        test = ast.unparse(statement.test)
        if any(_name(node) in TRYLOCKS for node in ast.walk(statement.test) if _is_call(node)):
            yield "trylock ignored"
        again = test in seen or "pte_same(" in test
        if again and not statement.orelse:
            yield "recheck removed"
        seen.add(test)
        yield "test negated"


def _has_unlock(function: ast.FunctionDef, lock: ast.Call) -> bool:
    wanted = {ast.unparse(lock).replace(_name(lock), end, 1) for end in UNLOCKS
              if UNLOCKS[end] == _name(lock)}  # fmt: skip
    return any(ast.unparse(statement) in wanted for body in _bodies(function) for statement in body)


def _bodies(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse"):
        body = getattr(node, field, None)
        if isinstance(body, list) and body:
            yield body
            for statement in body:
                if not isinstance(statement, ast.FunctionDef):
                    yield from _bodies(statement)


def _call(statement: ast.stmt) -> ast.Call | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return statement.value
    return None


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call)


def _name(call: ast.AST) -> str:
    assert isinstance(call, ast.Call)
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_plain(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.Assign, ast.AugAssign)) or _call(statement) is not None


def _stores(statement: ast.stmt) -> bool:
    """Does it look like a change of shared state: an attribute, a flag, a pte? Counters, which take
    no step, do not count."""
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Attribute) for target in statement.targets)
    call = _call(statement)
    name = _name(call) if call is not None else ""
    return name.startswith(("Set", "Clear", "set_", "get_page", "put_page"))


def _ignoring_trylocks(test: ast.expr) -> ast.expr:
    class Ignore(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            if _name(node) not in TRYLOCKS:
                return node
            both = ast.Tuple([node, ast.Constant(True)], ast.Load())
            return ast.Subscript(both, ast.Constant(1), ast.Load())

    changed = Ignore().visit(test)
    assert isinstance(changed, ast.expr)
    return changed


def _hit() -> ast.stmt:
    return ast.parse("_reached.hit()").body[0]


def _after_docstring(tree: ast.Module) -> int:
    at = 0
    for at, statement in enumerate(tree.body):
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not is_future and not isinstance(statement, ast.Expr):
            return at
    return at
