"""What users wrote, and that it was noticed: contents and soft-dirty bits. Patches: P10."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.flags import VM_SOFTDIRTY
from kstate.machine import (
    Note,
    Report,
    look,
    touch,
)
from kstate.structs import PRESENT, Kernel, Page, Pte


class NoWriteIsLost:
    """What a user wrote stays: nobody writes to a page whose content has moved on, and no page is
    discarded while what it holds is nowhere else.

    Invariant:   page content (every write leaves a token of its own).
    Not checked: pages dropped by truncation or unmapping, whose content nobody wants.
    """

    id = "write-lost"

    def attach(self, k: Kernel) -> None:
        self._k = k
        self._moved: dict[int, Page] = {}
        self._found: list[Report] = []
        for kind, tell in (
            ("page-moved", self._move),
            ("page-freed", self._free),
            ("page-written", self._write),
            ("page-discarded", self._discard),
            ("page-abandoned", self._abandon),
        ):
            k.machine.subscribe(kind, tell)

    def _move(self, note: Note) -> None:
        old, new = note.about
        look(old, "content")
        self._moved[old.pfn] = new
        self._moved.pop(new.pfn, None)

    def _free(self, note: Note) -> None:
        self._moved.pop(note.about[0].pfn, None)

    def _write(self, note: Note) -> None:
        page: Page = note.about[0]
        new = self._moved.get(page.pfn)
        if new is not None:
            self._report(f"a write to {page.label()}, whose content is in {new.label()} now", page)

    def _discard(self, note: Note) -> None:
        page, mapping = note.about
        look(page, "content")
        if mapping is self._k.swap.space:
            stored = self._k.swap.backing.get(page._private, 0)
        else:
            stored = mapping.backing.get(page._index, 0)
        if stored != page._token:
            self._report(f"{page.label()} is discarded before what it holds was stored", page)

    def _abandon(self, note: Note) -> None:
        new, page = note.about
        look(new, "content")
        look(page, "content")
        if new._token != page._token:
            self._report(f"{new.label()} was written to, and {page.label()} mapped again", page)

    def _report(self, text: str, page: Page) -> None:
        self._found.append(Report(self.id, text, "oracle", (page.label(),)))

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from self._found


class WritesAreSoftDirty:
    """Since the last clear_refs, what was written to is soft-dirty: a write finds the bit set or
    sets it, and migration keeps it.

    Invariant:   kernel-reference I17.          Patches: P10, fix:clear-refs-write-entry.
    Not checked: while a clear_refs of the process runs; file pages that reclaim unmapped; huge
    pages, whose ptes clear_refs and pagemap do not look at.
    """

    id = "soft-dirty-lost"

    def attach(self, k: Kernel) -> None:
        self._k = k
        self._clearing: dict[str, int] = {}
        self._cleared: dict[str, int] = {}
        self._before: dict[int, tuple[int, list[Pte]]] = {}
        self._found: list[Report] = []
        for kind, tell in (
            ("operation-begin", self._operation_begins),
            ("operation-end", self._operation_ends),
            ("page-written", self._write),
            ("migration-begin", self._migration_begins),
            ("migration-end", self._migration_ends),
        ):
            k.machine.subscribe(kind, tell)

    def _touch(self, name: str) -> None:
        mm = self._k.processes.get(name)
        if mm is not None:
            touch(mm, "clear_refs")

    def _operation_begins(self, note: Note) -> None:
        if note.about[1] == "clear_refs":
            name = note.about[0]
            self._touch(name)
            self._clearing[name] = self._clearing.get(name, 0) + 1

    def _operation_ends(self, note: Note) -> None:
        if note.about[1] == "clear_refs":
            name = note.about[0]
            self._touch(name)
            self._clearing[name] -= 1
            self._cleared[name] = note.log_at

    def _write(self, note: Note) -> None:
        page, pte = note.about
        if pte is not None:
            look(pte.mm, "clear_refs")
        if pte is not None and not self._soft_dirty(pte) and not self._clearing.get(pte.mm.name):
            self._report(f"a write through {pte.label()} leaves it not soft-dirty", page, pte)

    def _migration_begins(self, note: Note) -> None:
        page = note.about[0]
        every = [pte for mm in self._k.processes.values() for pte in mm.ptes.values()]
        for pte in every:
            look(pte, "pte")
        marked = [
            pte
            for pte in every
            if pte._value.page is page and pte._value.kind == PRESENT and pte._value.soft_dirty
        ]
        self._before[note.task] = (note.log_at, marked)

    def _migration_ends(self, note: Note) -> None:
        page, newpage = note.about[:2]
        begun_at, marked = self._before.pop(note.task, (0, []))
        for pte in marked:
            name = pte.mm.name
            look(pte.mm, "clear_refs")
            look(pte, "pte")
            value = pte._value
            if (
                value.kind == PRESENT
                and value.page in (page, newpage)
                and not self._soft_dirty(pte)
                and not self._clearing.get(name)
                and self._cleared.get(name, -1) < begun_at
            ):
                self._report(f"migration took the soft-dirty bit of {pte.label()}", newpage, pte)

    def _soft_dirty(self, pte: Pte) -> bool:
        """As pagemap tells it; so is what no vma covers any more, which it does not tell of."""
        look(pte, "pte")
        if pte._value.soft_dirty:
            return True
        for vma in pte.mm.vmas:
            look(vma, "vm_flags")
            if vma.vm_start <= pte.address < vma.vm_end:
                return vma.hugetlb or vma._vm_flags & VM_SOFTDIRTY != 0
        return True

    def _report(self, text: str, page: Page, pte: Pte) -> None:
        self._found.append(Report(self.id, text, "oracle", (pte.label(), page.label())))

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from self._found
