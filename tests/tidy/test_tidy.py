"""House rules, run: the floor plan, the form of a toggle, what docstrings must say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fuzz.corpus import program_files, races_folder, read_program
from fuzz.findings import FINDINGS
from fuzz.replay import replay_file
from kstate.machine import points_met
from kstate.patches import BY_TOGGLE, TABLE

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "kstate").rglob("*.py")) + sorted((ROOT / "fuzz").rglob("*.py"))
MM = sorted(
    path for room in ("mm", "fs", "kernel") for path in (ROOT / "kstate" / room).glob("*.py")
)

KSTATE = {"machine", "flags", "structs", "pageflags", "patches"}
FOLDERS = {"mm", "fs", "kernel"}
# room -> rooms it may import from; a module without a line fails
FLOOR_PLAN: dict[str, set[str]] = {
    "kstate.machine": {"kstate.machine"},
    "kstate.flags": set(),
    "kstate.patches": set(),
    "kstate.structs": {"kstate.machine", "kstate.flags"},
    "kstate.pageflags": {"kstate.machine", "kstate.flags", "kstate.structs"},
    **{f"kstate.{room}": {f"kstate.{name}" for name in KSTATE | FOLDERS} for room in FOLDERS},
    "kstate.pool": {f"kstate.{name}" for name in KSTATE | FOLDERS},
    "kstate.syscalls": {f"kstate.{name}" for name in KSTATE | FOLDERS | {"pool"}},
    "kstate.boot": {"kstate.machine", "kstate.structs"},
    "kstate.patchview": {"kstate.patches"},
    "kstate": {"kstate.boot", "kstate.patches", "kstate.structs"},
    "fuzz.schedulers": {"kstate.machine", "fuzz.prog", "fuzz.schedulers"},
    "fuzz.oracles": {"kstate.machine", "kstate.structs", "kstate.flags", "fuzz.oracles",
                     "fuzz.locklog"},
    "fuzz.prog": {"kstate.machine", "kstate.syscalls", "kstate.patches", "kstate.boot",
                  "fuzz.prog"},
    "fuzz.run": {"kstate.machine", "kstate.boot", "kstate.patches", "kstate.structs",
                 "kstate.syscalls", "fuzz.oracles", "fuzz.prog", "fuzz.schedulers"},
    "fuzz.turns": {"kstate.machine", "fuzz.run", "fuzz.prog"},
    "fuzz.access": {"kstate.machine", "fuzz.run", "fuzz.locklog"},
    "fuzz.pairs": {"kstate.machine", "fuzz.access", "fuzz.run", "fuzz.prog", "fuzz.schedulers"},
    "fuzz.conflict": {"kstate.machine", "fuzz.run", "fuzz.prog"},
    "fuzz.locklog": {"kstate.machine"},
    "fuzz.callchain": {"kstate.machine"},
    "fuzz.happens": {"kstate.machine", "fuzz.locklog"},
    "fuzz.datarace": {"kstate.machine", "fuzz.run", "fuzz.prog", "fuzz.locklog", "fuzz.callchain",
                      "fuzz.happens"},
    "fuzz.subject": {"kstate.machine", "fuzz.run", "fuzz.prog", "fuzz.oracles", "fuzz.schedulers",
                     "fuzz.turns"},
    "fuzz.userfile": {"fuzz.subject"},
    "fuzz.footprint": {"kstate.machine", "fuzz.subject", "fuzz.dpor"},
    "fuzz.bounded": {"kstate.machine", "fuzz.subject", "fuzz.footprint"},
    "fuzz.parts": {"kstate.machine", "fuzz.prog", "fuzz.subject", "fuzz.bounded", "fuzz.dpor"},
    "fuzz.checkpoint": {"kstate.machine", "fuzz.parts", "fuzz.version"},
    "fuzz.explore": {"kstate.machine", "fuzz.run", "fuzz.prog", "fuzz.subject", "fuzz.bounded",
                     "fuzz.parts", "fuzz.checkpoint", "fuzz.schedulers", "fuzz.workers"},
    "fuzz.workers": set(),
    "fuzz.dpor": {"kstate.machine", "fuzz.locklog", "fuzz.subject", "fuzz.dpor"},
    "fuzz.coverage": {"kstate.machine", "kstate.structs", "kstate.syscalls", "fuzz.run",
                      "fuzz.prog", "fuzz.oracles"},
    "fuzz.minimise": {"kstate.boot", "kstate.machine", "kstate.syscalls", "fuzz.run", "fuzz.prog",
                      "fuzz.turns", "fuzz.explore", "fuzz.schedulers", "fuzz.subject"},
    "fuzz.sample": {"kstate.machine", "kstate.patches", "fuzz.run", "fuzz.prog",
                    "fuzz.oracles", "fuzz.schedulers", "fuzz.subject"},
    "fuzz.claims": {"kstate.patches", "fuzz.run", "fuzz.prog"},
    "fuzz.replay": {"kstate.machine", "kstate.patches", "fuzz.claims", "fuzz.oracles",
                     "fuzz.run", "fuzz.prog", "fuzz.explore", "fuzz.schedulers"},
    "fuzz.locks": {"fuzz.run", "fuzz.prog", "fuzz.oracles", "fuzz.locklog", "fuzz.callchain",
                   "fuzz.schedulers", "kstate.machine"},
    "fuzz.bisect": {"kstate.patches", "fuzz.run", "fuzz.prog", "fuzz.explore", "fuzz.turns",
                    "fuzz.oracles"},
    "fuzz.corpus": {"kstate.syscalls", "fuzz.prog", "fuzz.findings", "fuzz.schedulers"},
    "fuzz.findings": {"fuzz.oracles"},
    "fuzz.version": {"kstate", "fuzz.prog"},
    "fuzz.report": {"kstate.machine", "kstate.flags", "fuzz.run", "fuzz.prog", "fuzz.findings",
                    "fuzz.conflict", "fuzz.oracles", "fuzz.schedulers", "fuzz.subject",
                    "fuzz.turns"},
    "fuzz.crash": {"fuzz.run", "fuzz.prog", "fuzz.turns", "fuzz.conflict", "fuzz.minimise",
                   "fuzz.corpus", "fuzz.oracles",
                   "fuzz.report", "fuzz.findings", "fuzz.sample", "fuzz.version"},
    "fuzz.campaign": {"kstate.machine", "fuzz.run", "fuzz.prog", "fuzz.schedulers",
                      "fuzz.coverage", "fuzz.bounded", "fuzz.crash", "fuzz.conflict",
                      "fuzz.minimise", "fuzz.oracles", "fuzz.access", "fuzz.pairs",
                      "fuzz.corpus", "fuzz.campaign"},
    "fuzz": {"fuzz.prog", "fuzz.run"},
}  # fmt: skip
ANYTHING = {
    "fuzz.cli",
    "fuzz.cli_campaign",
    "fuzz.cli_explore",
    "fuzz.cli_lists",
    "fuzz.cli_reports",
    "fuzz.cli_runs",
    "fuzz.bench",
    "fuzz.bench_blind",
    "fuzz.bench_frontrun",
    "fuzz.mutants",
    "fuzz.__main__",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    for length in (2, 1):
        room = ".".join(parts[:length])
        if room in FLOOR_PLAN or room in ANYTHING:
            return room
    return module


def imports(tree: ast.AST) -> set[str]:
    """Modules imported, as `package.module`; `from kstate.mm import rmap` counts as kstate.mm."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module in ("kstate", "fuzz"):
                found.discard(node.module)
                for alias in node.names:
                    inside = f"{node.module}.{alias.name}"
                    found.add(inside if inside in FLOOR_PLAN or inside in ANYTHING else node.module)
    return {name for name in found if name.split(".")[0] in ("kstate", "fuzz")}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_every_import_is_an_arrow_of_the_floor_plan(path: Path) -> None:
    room = room_of(module_of(path))
    if room in ANYTHING:
        return
    assert room in FLOOR_PLAN, f"{path} has no room"
    for imported in imports(ast.parse(path.read_text())):
        target = room_of(imported)
        assert target == room or target in FLOOR_PLAN[room], f"{room} may not import {imported}"


def test_the_machine_knows_only_the_standard_library_and_greenlet() -> None:
    for path in (ROOT / "kstate" / "machine").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith("fuzz")
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"sys", "threading", "greenlet"}


@pytest.mark.parametrize("path", [*MM, ROOT / "kstate" / "pool.py"], ids=lambda path: path.name)
def test_a_toggle_is_a_whole_statement(path: Path) -> None:
    """Exactly `if P02 in k.patches:` or `not in`; no `and`, no `elif`, no ternary."""
    text = path.read_text()
    for line in text.splitlines():
        if "k.patches" in line:
            assert re.fullmatch(r"\s*if \w+ (not )?in k\.patches:", line), line


def test_each_modelled_patch_has_a_site_and_the_others_none() -> None:
    used: dict[str, set[str]] = {}
    for path in MM:
        for toggle in re.findall(r"if (\w+) (?:not )?in k\.patches:", path.read_text()):
            used.setdefault(toggle, set()).add(path.name)
    for patch in TABLE:
        wanted = set(patch.files) if patch.modelled and patch.behaviour else set()
        assert used.get(patch.toggle, set()) == wanted, patch.name


@pytest.mark.parametrize("path", MM, ids=lambda path: path.name)
def test_model_functions_say_their_source_and_their_patches(path: Path) -> None:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        source = ast.get_source_segment(text, node) or ""
        doc = ast.get_docstring(node) or ""
        assert not [n for n in ast.walk(node) if isinstance(n, (ast.With, ast.Try))], node.name
        private_helper = node.name.startswith("_") and not node.name.startswith("__")
        nested = node.col_offset > 0
        if path.name == "debug.py" or private_helper or nested:
            continue
        assert "Source:" in doc or node.name in OUR_OWN, f"{path.name}:{node.name} has no Source"
        toggles = set(re.findall(r"if (\w+) (?:not )?in k\.patches:", source))
        said = doc.split("Patches:")[1].splitlines()[0] if "Patches:" in doc else ""
        names = {BY_TOGGLE[toggle].name for toggle in toggles}
        assert names == set(re.findall(r"[\w:-]+(?:[\w])", said)), f"{node.name}: {said}"


# helpers of the model that no kernel function corresponds to
OUR_OWN = {"insert_by_pgoff", "pte_offset", "isolated_counter", "mapping_cap_account_dirty"}


def test_point_names_carry_no_lambda_comprehension_or_line() -> None:
    for path in program_files(races_folder()):
        list(replay_file(read_program(path)))
    names = [point.name for point in points_met() if point.name.startswith("mm/")]
    assert len(names) > 200
    assert [name for name in names if "<" in name] == []


def test_every_finding_the_model_can_report_is_in_the_table() -> None:
    pattern = re.compile(r'"((?:vm-)?bug-[a-z0-9-]+|bad-[a-z-]+|warn-[a-z-]+)"')
    for path in [*MM, ROOT / "kstate" / "pageflags.py"]:
        for id in pattern.findall(path.read_text()):
            assert id in FINDINGS, f"{path.name}: {id}"


def test_nothing_in_a_run_asks_the_clock_or_global_chance() -> None:
    rooms = {
        "fuzz.run",
        "fuzz.turns",
        "fuzz.schedulers",
        "fuzz.oracles",
        "fuzz.prog",
        "fuzz.sample",
    }
    for path in SOURCES:
        module = module_of(path)
        if not module.startswith("kstate") and room_of(module) not in rooms:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
                assert not names & {"time", "datetime", "random", "secrets", "uuid"}, module
            elif isinstance(node, ast.ImportFrom) and node.module == "random":
                assert [alias.name for alias in node.names] == ["Random"], module
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("id", "hash", "input", "open"), module
                if node.func.id == "Random":
                    assert node.args, f"{module}: an unseeded Random"


def test_model_md_lists_every_patch_and_every_model_file() -> None:
    text = (ROOT / "kstate" / "MODEL.md").read_text()
    for patch in TABLE:
        status = "text only" if not patch.behaviour else "yes" if patch.modelled else "not yet"
        assert re.search(rf"^\| {re.escape(patch.name)} \|.*\| {status} \|", text, re.M), patch.name
    for path in MM:
        if path.name not in ("__init__.py", "debug.py"):
            assert f"`{path.parent.name}/{path.name}`" in text, path.name
