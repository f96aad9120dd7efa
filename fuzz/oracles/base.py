"""What an oracle is, and the quiet state that quiescent oracles look at.

An oracle is a claim about the kernel that can be false. It looks at private slots, never steps,
never imports kstate.mm: the model must not judge itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kstate.flags import VM_LOCKED
from kstate.machine import Report
from kstate.structs import MIGRATION, PRESENT, Kernel, Page, Pte, VmAreaStruct


class Snapshot:
    """The kernel when no task is inside an operation and every pagevec is drained.

    mappings: page number -> (vma or None where none covers the pte, pte) of every present pte.
    entries: ptes that hold a migration entry. in_use: pages with a reference.
    """

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.mappings: dict[int, list[tuple[VmAreaStruct | None, Pte]]] = {}
        self.entries: list[Pte] = []
        for mm in k.processes.values():
            for address, pte in mm.ptes.items():
                value = pte._value
                if value.kind == PRESENT and value.page is not None:
                    covering = None
                    for vma in mm.vmas:
                        if vma.vm_start <= address < vma.vm_end:
                            covering = vma
                            break
                    self.mappings.setdefault(value.page.pfn, []).append((covering, pte))
                elif value.kind == MIGRATION:
                    self.entries.append(pte)
        self.in_use = [page for page in k.pages.values() if page._refcount > 0]

    def locked_mappings(self, page: Page) -> list[tuple[VmAreaStruct, Pte]]:
        """Present ptes that map the page in a VM_LOCKED vma."""
        return [
            (vma, pte)
            for vma, pte in self.mappings.get(page.pfn, ())
            if vma is not None and vma.locked
        ]


class Oracle(Protocol):
    """One claim. Made anew for every run.

    id: of the finding it reports. attach: subscribe to notes or observe steps, if it must look
    while the run goes on. quiescent: asked once of a run that ended by itself and settled."""

    id: str

    def attach(self, k: Kernel) -> None: ...

    def quiescent(self, state: Snapshot) -> Iterator[Report]: ...


def vma_was_locked_throughout(k: Kernel, vma: VmAreaStruct, since: int, objects_count: int) -> bool:
    """Did `vma` exist and stay VM_LOCKED from a place in the log until now? Reads the log."""
    if vma.id >= objects_count or not vma.locked:
        return False
    for event in k.machine.events(since):
        if event.operand == vma.id:
            primitive = event.point.primitive
            if primitive.name == "store" and primitive.word == "vm_flags":
                if not event.results[0] & VM_LOCKED:
                    return False
    return True


# Functions that empty a pte for a moment and put the same page back.
TRANSIENT = frozenset(("change_protection", "page_mkclean_one"))


def pte_was_mapped_throughout(k: Kernel, pte: Pte, since: int) -> bool:
    """Has a pte that maps a page now not been unmapped since a place in the log? Reads the log."""
    return not any(
        event.operand == pte.id
        and event.point.primitive.name == "ptep_get_and_clear"
        and event.point.function not in TRANSIENT
        for event in k.machine.events(since)
    )
