"""The model against what the real v4.3.0 and v4.4.0 kernels did (tests/data/conformance).

After every operation of every recorded program everything the recorder saw is compared: first what
must agree throughout, then what must in 98 % of all observations.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

import kstate
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
FLAGS = FIRST | SECOND
FIELDS = (
    "ret", "presence", "swap", "zero", "soft_dirty", "page", "mapcount", "node", *sorted(FIRST),
    "events", *sorted(SECOND),
)  # fmt: skip
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


def normalised(pages: dict[str, Any]) -> dict[str, Any]:
    """The compared flags only; identities renumbered in order of appearance."""
    seen: dict[int, int] = {}
    result = {}
    for key in sorted(pages):
        result[key] = now = dict(pages[key])
        if "page" in now:
            now["page"] = seen.setdefault(now["page"], len(seen))
            now |= dict.fromkeys(FLAGS & set(now.pop("flags")), True)
    return result


def differing_fields(model: dict[str, Any], real: dict[str, Any]) -> set[str]:
    """Which fields of an observation differ; `presence` where one has a page the other has not."""
    fields = set()
    for key in model.keys() | real.keys():
        ours, theirs = model.get(key), real.get(key)
        if ours is None or theirs is None or ("page" in ours) != ("page" in theirs):
            fields.add("presence")
            continue
        fields |= {name for name in ours | theirs if ours.get(name) != theirs.get(name)}
    return fields


@dataclass
class Agreement:
    """Of one set of recordings. observations: made until each program's first disagreement in what
    must agree throughout, that one included. differ: how many of them differ, by field. first: the
    fields in which programs disagree first, with the operation."""

    programs: int = 0
    observations: int = 0
    differ: Counter[str] = field(default_factory=Counter)
    first: Counter[Disagreement] = field(default_factory=Counter)

    def of(self, name: str) -> str:
        return f"{self.observations - self.differ[name]:,} of {self.observations:,}"


@cache
def compare(kernel: str, name: str) -> Agreement:
    agreement = Agreement()
    for steps in recorded(name):
        agreement.programs += 1
        machine = Machine(Default(), steps_max=2_000_000)
        k = boot(machine, parse_spec(kernel).toggles, SIZE, ("A",))
        assert machine.run(partial(_follow, k, steps, agreement)) is None
        assert not machine.reports
    return agreement


def _follow(k: Kernel, steps: list[dict[str, Any]], agreement: Agreement) -> None:
    """Run a program until it disagrees in what must agree throughout."""
    counted: dict[str, int] = {}
    for step in steps:
        ret = perform(k, step)
        counts = {ours: k.events.get(theirs, 0) for ours, theirs in EVENTS.items()}
        increase = {key: n - counted.get(key, 0) for key, n in counts.items()}
        counted = counts
        fields = differing_fields(normalised(observe(k)), normalised(step["pages"]))
        if ret != step["ret"]:
            fields.add("ret")
        if {key: n for key, n in increase.items() if n} != step["events"]:
            fields.add("events")
        agreement.observations += 1
        agreement.differ.update(fields)
        if fields - SECOND:
            agreement.first[min(fields - SECOND), step["op"].split()[0]] += 1
            return


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4"])
def test_every_recorded_program_agrees_in_every_field(kernel: str) -> None:
    agreement = compare(kernel, kernel)
    assert (agreement.programs, agreement.observations) == (1500, 33_000)
    assert not agreement.first
    assert set(agreement.differ) <= SECOND
    assert max(agreement.differ.values(), default=0) <= 0.02 * agreement.observations


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4"])
def test_recorded_reclaim_agrees_but_for_what_model_md_names(kernel: str) -> None:
    """Whether flusher threads were woken, and what was left on a list, depends on pages of the
    processes that the recordings do not show (MODEL.md, Conformance): reclaim leaves a page more or
    less, or a dirty one, and some operation notices."""
    agreement = compare(kernel, f"{kernel}-reclaim")
    assert agreement.programs == 300
    assert agreement.first == {
        ("dirty", "reclaim"): 7,
        ("dirty", "mlock"): 2,
        ("dirty", "read"): 1,
        ("presence", "reclaim"): 2,
        ("presence", "read"): 1,
        ("page", "reclaim"): 2,
    }


COLUMNS = ("v4.3", "v4.4", "v4.3-reclaim", "v4.4-reclaim")


def table() -> str:
    """Agreement by field, as MODEL.md has it."""
    sets = [compare(name.partition("-")[0], name) for name in COLUMNS]
    lines = [f"| field | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    lines += [f"| {name} | {' | '.join(each.of(name) for each in sets)} |" for name in FIELDS]
    return "\n".join(lines)


def test_model_md_reports_agreement_by_field() -> None:
    text = (Path(kstate.__file__).parent / "MODEL.md").read_text()
    assert table() in text, f"MODEL.md should have\n{table()}"


def test_the_comparison_notices_a_wrong_kernel() -> None:
    """The recordings of v4.4 do not fit v4.3: the check can fail."""
    assert sum(compare("v4.3", "v4.4").first.values()) == 320
