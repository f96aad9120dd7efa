"""The mutants that `kfuzz bench blind` is about: of every operator, the same for a seed, deadly."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

import kstate
from fuzz.bench_blind import NEUTRAL, REACHED_SOURCE, Job, attempt
from fuzz.corpus import races_folder
from fuzz.mutants import OPERATORS, REACHED, Mutant, chosen

MM = Path(kstate.__file__).parent / "mm"


def test_a_seed_chooses_mutants_of_every_operator() -> None:
    mutants = chosen(MM, 18, "seed")
    assert [mutant.operator for mutant in mutants] == [*OPERATORS] * 3
    assert mutants == chosen(MM, 18, "seed")
    assert mutants != chosen(MM, 18, "another")
    for mutant in mutants:
        tree = ast.parse(mutant.source)
        assert mutant.source.count("_reached.hit()") >= 1
        assert ast.dump(tree) != ast.dump(ast.parse((MM.parent / mutant.file).read_text()))


SOURCE = '''
def lots(page, lock, pte, entry):
    """Doc."""
    spin_lock(lock)
    if not trylock_page(page):
        return 1
    SetPageDirty(page)
    page.mapping = None
    if not pte_same(pte.value, entry):
        return 2
    unlock_page(page)
    spin_unlock(lock)
'''


@pytest.mark.parametrize(
    ("operator", "there"),
    [
        ("unlock moved up", "_reached.hit()\n    spin_unlock(lock)\n    unlock_page(page)"),
        ("lock dropped", '"""Doc."""\n    _reached.hit()\n    if not trylock_page'),
        ("recheck removed", "_reached.hit()\n    if False:\n        return 2"),
        ("trylock ignored", "_reached.hit()\n    if not (trylock_page(page), True)[1]:"),
        ("stores swapped", "_reached.hit()\n    page.mapping = None\n    SetPageDirty(page)"),
        ("test negated", "_reached.hit()\n    if not not trylock_page(page):"),
    ],
)
def test_what_an_operator_does(tmp_path: Path, operator: str, there: str) -> None:
    (tmp_path / "some.py").write_text(SOURCE)
    sources = [mutant.source for mutant in chosen(tmp_path, 100, "") if mutant.operator == operator]
    assert any(there in source for source in sources), sources


def test_a_deadly_mutant_is_killed_and_an_idle_one_is_not(tmp_path: Path) -> None:
    """In a tree of its own, in a process of its own, by a search of one race file."""
    tree, programs = tmp_path / "tree", tmp_path / "programs"
    programs.mkdir()
    shutil.copy(races_folder() / "2b-i-munlock.prog", programs)
    source = (MM / "mlock.py").read_text()
    counts = "page.zone.stat[NR_MLOCK] += page.nr_pages"
    assert counts in source
    for dies in (True, False):
        shutil.rmtree(tree, ignore_errors=True)
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(MM.parent, tree / "kstate", ignore=ignore)
        text = source.replace(counts, "_reached.hit()" + ("" if dies else f"; {counts}"))
        text = text.replace("from kstate.", f"import {REACHED} as _reached\nfrom kstate.", 1)
        (tree / "kstate" / "mm" / "mlock.py").write_text(text)
        (tree / Path(*REACHED.split(".")).with_suffix(".py")).write_text(REACHED_SOURCE)
        mutant = Mutant("test negated", "mm/mlock.py", 1, "mlock_vma_page", "", text)
        found, _, hits = attempt(tree, NEUTRAL, Job(mutant, programs, "seed"))
        assert found == ("nr-mlock-mismatch" if dies else "")
        assert hits > 0
