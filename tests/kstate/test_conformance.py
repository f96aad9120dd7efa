"""The model against what the real v4.3.0 and v4.4.0 kernels did (tests/data/conformance)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzz.prog.text import _argument
from fuzz.schedulers import Default
from kstate import MachineSize, boot, parse_spec
from kstate.machine import Machine
from kstate.structs import PRESENT, AnonVma, Kernel
from kstate.syscalls import (
    KIND,
    KINDS,
    OPERATIONS,
    SLOT_PAGES,
    SLOTS_COUNT,
    call,
    settle,
    slot_start,
)

DATA = Path(__file__).parent.parent / "data" / "conformance"
COMPARED_FLAGS = frozenset(("mlocked", "unevictable", "lru", "anon", "swapbacked"))
SIZE = MachineSize(cpus=1, zones=2, pages=64, pool=0)


def recorded(kernel: str) -> Iterator[list[dict[str, Any]]]:
    with gzip.open(DATA / f"{kernel}.jsonl.gz", "rt") as file:
        for line in file:
            yield json.loads(line)["steps"]


def in_slice(step: dict[str, Any]) -> tuple[str, tuple[Any, ...]] | None:
    """The operation, if the slice has it; fork and exit belong to a second process."""
    name, *words = step["op"].split()
    operation = OPERATIONS.get(name)
    if operation is None or name == "exit" or step["task"] != "A":
        return None
    if any(
        kind == KIND and word not in KINDS
        for kind, word in zip(operation.arguments, words, strict=True)
    ):
        return None
    return name, tuple(
        _argument(kind, word, 1, 1) for kind, word in zip(operation.arguments, words, strict=True)
    )


def observe(k: Kernel) -> dict[str, Any]:
    """What the recorder looks at, of the model: identities are numbered as they appear."""
    mm = k.processes["A"]
    seen: dict[Any, int] = {}
    pages: dict[str, Any] = {}
    for slot in range(SLOTS_COUNT):
        for page_number in range(SLOT_PAGES):
            address = slot_start(slot) + page_number
            if not any(vma.vm_start <= address < vma.vm_end for vma in mm.vmas):
                continue
            pte = mm.ptes.get(address)
            value = pte._value if pte else None
            where: dict[str, Any] = {}
            if value is not None and value.kind == PRESENT and value.page is None:
                where["zero"] = True
            elif value is not None and value.kind == PRESENT:
                page = value.page
                assert page is not None
                flags = set(page.flag_names()) | (
                    {"anon"} if isinstance(page._mapping, AnonVma) else set()
                )
                where = {
                    "page": seen.setdefault(page.pfn, len(seen)),
                    "node": page.zone.node,
                    "mapcount": page._mapcount,
                    "flags": sorted(flags & COMPARED_FLAGS),
                }
            pages[f"A{slot}.{page_number}"] = where
    return pages


def normalised(pages: dict[str, Any]) -> dict[str, Any]:
    """A recorded observation with the compared fields only; identities renumbered."""
    seen: dict[int, int] = {}
    result = {}
    for key in sorted(pages):
        was = pages[key]
        now = {}
        if was.get("zero"):
            now["zero"] = True
        elif "page" in was:
            now = {
                "page": seen.setdefault(was["page"], len(seen)),
                "node": was["node"],
                "mapcount": was["mapcount"],
                "flags": sorted(set(was["flags"]) & COMPARED_FLAGS),
            }
        result[key] = now
    return result


@pytest.mark.parametrize("kernel", ["v4.3", "v4.4"])
def test_the_longest_modelled_prefix_of_every_recording_agrees(kernel: str) -> None:
    """Return value, presence, identity, mapcount, node and five flags, after every operation."""
    programs = compared = 0
    for steps in recorded(kernel):
        programs += 1
        machine = Machine(Default())
        k = boot(machine, parse_spec(kernel).toggles, SIZE, ("A",))
        history: list[str] = []
        count = [0]

        def root(
            k: Kernel = k,
            steps: list[dict[str, Any]] = steps,
            history: list[str] = history,
            count: list[int] = count,
        ) -> None:
            for step in steps:
                op = in_slice(step)
                if op is None:
                    return
                history.append(step["op"])
                returned = call(k, "A", *op)
                settle(k)
                assert returned == step["ret"], history
                assert observe(k) == normalised(step["pages"]), history
                count[0] += 1

        assert machine.run(root) is None
        assert not machine.reports, history
        compared += count[0]
    assert programs == 1500
    assert compared > 1000, "hardly anything was compared"
