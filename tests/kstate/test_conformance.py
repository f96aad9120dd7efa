"""The model against what the real v4.3.0 and v4.4.0 kernels did (tests/data/conformance).

After every operation of every recorded program everything the recorder saw is compared: first what
must agree throughout, then what must in 98 % of all observations.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzz.prog.text import _argument
from fuzz.schedulers import Default
from kstate import MachineSize, boot, parse_spec
from kstate.flags import VM_SOFTDIRTY
from kstate.machine import Machine
from kstate.structs import NONE, PRESENT, PTE_NONE, AnonVma, Kernel, VmAreaStruct
from kstate.syscalls import OPERATIONS, SLOT_STRIDE, call, settle

DATA = Path(__file__).parent.parent / "data" / "conformance"
FIRST = frozenset(("mlocked", "unevictable", "lru", "anon", "swapbacked", "dirty", "uptodate"))
SECOND = frozenset(("referenced", "active", "writeback"))
EVENTS = {
    "culled": "unevictable_pgs_culled",
    "rescued": "unevictable_pgs_rescued",
    "mlocked": "unevictable_pgs_mlocked",
    "munlocked": "unevictable_pgs_munlocked",
    "cleared": "unevictable_pgs_cleared",
    "stranded": "unevictable_pgs_stranded",
    "migrate_success": "pgmigrate_success",
    "migrate_fail": "pgmigrate_fail",
}
SIZE = MachineSize(cpus=1, zones=2, pages=96, pool=0)
Disagreement = tuple[str, str]  # the field, the operation


def recorded(name: str) -> Iterator[list[dict[str, Any]]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as file:
        for line in file:
            yield json.loads(line)["steps"]


def perform(k: Kernel, step: dict[str, Any]) -> int:
    """One recorded operation and the drain that followed it. The recorder's fork makes B."""
    name, *words = step["op"].split()
    if name == "fork":
        words = ["B"]
    kinds = OPERATIONS[name].arguments
    arguments = tuple(_argument(kind, word, 1, 1) for kind, word in zip(kinds, words, strict=True))
    ret = call(k, step["task"], name, arguments)
    settle(k)
    return ret


def observe(k: Kernel) -> dict[str, Any]:
    """What the recorder looks at, of the model."""
    seen: dict[str, Any] = {}
    for name in ("A", "B"):
        mm = k.processes.get(name)
        if mm is None or mm._users == 0:
            continue
        for vma in mm.vmas:
            for address in range(vma.vm_start, vma.vm_end):
                key = f"{name}{address // SLOT_STRIDE}.{address % SLOT_STRIDE}"
                seen[key] = _page_at(vma, address)
    return seen


def _page_at(vma: VmAreaStruct, address: int) -> dict[str, Any]:
    pte = vma.vm_mm.ptes.get(address)
    value = pte._value if pte else PTE_NONE
    where: dict[str, Any] = {}
    if vma._vm_flags & VM_SOFTDIRTY or value.soft_dirty:
        where["soft_dirty"] = True
    page = value.page
    if value.kind not in (NONE, PRESENT):
        where["swap"] = True
    elif value.kind == PRESENT and page is None:
        where["zero"] = True
    elif page is not None:
        anon = {"anon"} if isinstance(page._mapping, AnonVma) else set()
        where |= {
            "page": page.pfn,
            "node": page.zone.node,
            "mapcount": page._mapcount,
            "flags": [*page.flag_names(), *anon],
        }
    return where


def normalised(pages: dict[str, Any], flags: frozenset[str]) -> dict[str, Any]:
    """The compared flags only; identities renumbered in order of appearance."""
    seen: dict[int, int] = {}
    result = {}
    for key in sorted(pages):
        result[key] = now = dict(pages[key])
        if "page" in now:
            now["page"] = seen.setdefault(now["page"], len(seen))
            now["flags"] = sorted(set(now["flags"]) & flags)
    return result


def differing_fields(model: dict[str, Any], real: dict[str, Any]) -> set[str]:
    """Which fields of an observation differ; `presence` where one has a page the other has not."""
    fields = set()
    for key in model.keys() | real.keys():
        ours, theirs = model.get(key), real.get(key)
        if ours is None or theirs is None or ("page" in ours) != ("page" in theirs):
            fields.add("presence")
            continue
        for field in ours.keys() | theirs.keys():
            if ours.get(field) != theirs.get(field):
                fields.add(field)
    return fields


def compare(kernel: str, name: str) -> tuple[int, int, int, Counter[Disagreement]]:
    """(programs, observations, observations that differ in the second group, first disagreement of
    each program that has one)."""
    programs = observations = second = 0
    disagreements: Counter[Disagreement] = Counter()
    for steps in recorded(name):
        programs += 1
        machine = Machine(Default(), steps_max=2_000_000)
        k = boot(machine, parse_spec(kernel).toggles, SIZE, ("A",))
        found: list[tuple[int, int, Disagreement | None]] = []

        def root(
            k: Kernel = k,
            steps: list[dict[str, Any]] = steps,
            found: list[tuple[int, int, Disagreement | None]] = found,
        ) -> None:
            found.append(_follow(k, steps))

        assert machine.run(root) is None
        assert not machine.reports
        seen, lesser, first = found[0]
        observations += seen
        second += lesser
        if first is not None:
            disagreements[first] += 1
    return programs, observations, second, disagreements


def _follow(k: Kernel, steps: list[dict[str, Any]]) -> tuple[int, int, Disagreement | None]:
    """Run a program until it first disagrees."""
    counted: dict[str, int] = {}
    second = 0
    for number, step in enumerate(steps):
        operation = step["op"].split()[0]
        if perform(k, step) != step["ret"]:
            return number, second, ("ret", operation)
        counts = {ours: k.events.get(theirs, 0) for ours, theirs in EVENTS.items()}
        increase = {key: n - counted.get(key, 0) for key, n in counts.items()}
        counted = counts
        seen = observe(k)
        fields = differing_fields(normalised(seen, FIRST), normalised(step["pages"], FIRST))
        if fields:
            return number, second, (min(fields), operation)
        if {key: n for key, n in increase.items() if n} != step["events"]:
            return number, second, ("events", operation)
        second += normalised(seen, SECOND) != normalised(step["pages"], SECOND)
    return len(steps), second, None


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4"])
def test_every_recorded_program_agrees_in_every_field(kernel: str) -> None:
    programs, observations, second, disagreements = compare(kernel, kernel)
    assert (programs, observations) == (1500, 33_000)
    assert not disagreements
    assert second <= 0.02 * observations


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4"])
def test_recorded_reclaim_agrees_but_for_what_model_md_names(kernel: str) -> None:
    """Whether flusher threads were woken, and what was left on a list, depends on pages of the
    processes that the recordings do not show (MODEL.md, Conformance): those programs disagree in
    the dirty flag or in presence, and in nothing else."""
    programs, observations, second, disagreements = compare(kernel, f"{kernel}-reclaim")
    assert programs == 300
    assert {field for field, _ in disagreements} <= {"flags", "presence", "page"}
    assert sum(disagreements.values()) <= 16
    assert second <= 0.02 * observations


def test_the_comparison_notices_a_wrong_kernel() -> None:
    """The recordings of v4.4 do not fit v4.3: the check can fail."""
    _, _, _, disagreements = compare("v4.3", "v4.4")
    assert sum(disagreements.values()) == 320
