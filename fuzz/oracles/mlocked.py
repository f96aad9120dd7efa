"""PG_mlocked, its counter, and how it gets lost. Patches: P02, P03, 70feee0e1ef3.

"Mapped in a VM_LOCKED vma, hence Mlocked" is no claim here: it is false on correct kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import (
    Snapshot,
    pte_was_mapped_throughout,
    vma_was_locked_throughout,
)
from kstate.flags import NR_MLOCK, SWAP_FAIL, TTU_UNMAP, PG_mlocked
from kstate.machine import (
    Note,
    Report,
    look,
)
from kstate.structs import PRESENT, Kernel, Page, Pte, VmAreaStruct


class MlockedPageIsMappedByALockedVma:
    """A page is PageMlocked only while some present pte in a VM_LOCKED vma maps it.

    Invariant:   kernel-reference I1.
    Not checked: mid-run (munlock and mlock pass through this); pages without a reference.
    Paired with: nr-mlock-mismatch, the same property reached through a counter.
    """

    id = "mlocked-page-leak"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for page in state.in_use:
            if page._flags & PG_mlocked and not state.locked_mappings(page):
                mappers = [pte.label() for _, pte in state.mappings.get(page.pfn, ())]
                yield Report(
                    self.id,
                    f"{page.label()} is left PageMlocked, but no VM_LOCKED vma maps it "
                    f"(mapped by: {', '.join(mappers) or 'nothing'})",
                    "oracle",
                    (page.label(),),
                )


class NrMlockCountsMlockedPages:
    """NR_MLOCK of a zone is the number of its PageMlocked pages.

    Invariant:   kernel-reference I2.
    Not checked: mid-run; pages withheld as bad (their flag is still counted by the kernel).
    """

    id = "nr-mlock-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for zone in state.k.zones:
            marked = sum(
                page.nr_pages
                for page in state.in_use
                if page.zone is zone and page._flags & PG_mlocked
            )
            if zone.stat[NR_MLOCK] != marked:
                yield Report(
                    self.id,
                    f"NR_MLOCK of {zone.label()} is {zone.stat[NR_MLOCK]}, "
                    f"but {marked} of its pages are PageMlocked",
                    "oracle",
                    (zone.label(),),
                )


class MigrationKeepsMlocked:
    """A page that was Mlocked when its migration began is Mlocked after it, if it is still wanted.

    Claimed where the flag was last cleared by the migrating task, and at the end a pte in a vma
    that was VM_LOCKED throughout maps the result unmarked.
    Invariant:   kernel-reference 3a, 3b (cause-based; I5 in general is false).
    Not checked: flags lost to anybody else; vmas that were split or merged meanwhile.
    """

    id = "mlock-lost-by-migration"

    def attach(self, k: Kernel) -> None:
        self._begun: dict[tuple[int, int], Note] = {}
        self._ended: list[tuple[Note, Note]] = []
        for kind in ("migration", "thp-migration"):
            k.machine.subscribe(f"{kind}-begin", self._begin)
            k.machine.subscribe(f"{kind}-end", self._end)
        k.machine.subscribe("page-freed", self._freed)

    def _freed(self, note: Note) -> None:
        self._ended = [ended for ended in self._ended if _result(ended[1]) is not note.about[0]]

    def _begin(self, note: Note) -> None:
        self._begun[note.task, note.about[0].id] = note

    def _end(self, note: Note) -> None:
        self._ended.append((self._begun.pop((note.task, note.about[0].id)), note))

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for begin, end in self._ended:
            page, _, rc, was_mlocked, cleared = end.about
            if not was_mlocked or cleared is None:
                continue
            by, at = cleared
            result = _result(end)
            if by != end.task or at < begin.log_at or result._flags & PG_mlocked:
                continue
            if rc == 0 and _cleared_after(result, begin.log_at):
                continue  # the migration gave newpage the flag; somebody else took it away
            if rc != 0 and result.cleared_mlocked != cleared:
                continue
            for vma, pte in state.locked_mappings(result):
                if vma_was_locked_throughout(state.k, vma, begin.log_at, begin.objects_count):
                    yield Report(
                        self.id,
                        f"{pte.label()} in a VM_LOCKED vma maps {result.label()}, not "
                        f"PageMlocked: migration of {page.label()} lost the flag",
                        "oracle",
                        (page.label(), result.label()),
                    )
                    break


def _result(end: Note) -> Page:
    """The page that is in use after a migration."""
    page, newpage, rc = end.about[:3]
    result: Page = newpage if rc == 0 else page
    return result


def _cleared_after(page: Page, log_at: int) -> bool:
    return page.cleared_mlocked is not None and page.cleared_mlocked[1] > log_at


class RmapWalkKeepsMlocked:
    """A munlock or reclaim walk finds the VM_LOCKED vma that still wants the page, and marks it.

    Claimed where a vma mapped the page and was VM_LOCKED throughout the walk, nobody else cleared
    the flag meanwhile, and the page is still unmarked and so mapped at the end. For munlock only
    with mapcount > 1 at its re-check: with 1 it does not look.
    A reclaim walk that stops at a pte used lately (SWAP_FAIL) has not seen every vma: no claim.
    Invariant:   kernel-reference 2c, 2d.
    Not checked: walks with TTU_IGNORE_MLOCK; vmas that were split or merged meanwhile.
    """

    id = "mlock-lost-by-rmap-walk"

    def attach(self, k: Kernel) -> None:
        self._k = k
        self._begun: dict[tuple[int, int], tuple[Note, list[tuple[VmAreaStruct, Pte]]]] = {}
        self._lost: list[tuple[Page, VmAreaStruct, Pte, Note]] = []
        for kind in ("munlock-walk-begin", "unmap-walk-begin"):
            k.machine.subscribe(kind, self._begin)
        for kind in ("munlock-walk-end", "unmap-walk-end"):
            k.machine.subscribe(kind, self._end)
        k.machine.subscribe("page-freed", self._freed)

    def _freed(self, note: Note) -> None:
        self._lost = [lost for lost in self._lost if lost[0] is not note.about[0]]

    def _begin(self, note: Note) -> None:
        if note.kind == "unmap-walk-begin" and note.about[1] != TTU_UNMAP:
            return
        page = note.about[0]
        wanted = []
        for mm in self._k.processes.values():
            for vma in mm.vmas:
                look(vma, "vm_flags")
                if not vma.locked:
                    continue
                for address in range(vma.vm_start, vma.vm_end):
                    pte = mm.ptes.get(address)
                    if pte is not None:
                        look(pte, "pte")
                        if _maps(pte, page):
                            wanted.append((vma, pte))
        self._begun[note.task, page.id] = (note, wanted)

    def _end(self, note: Note) -> None:
        page = note.about[0]
        begin, wanted = self._begun.pop((note.task, page.id), (note, []))
        if note.kind == "munlock-walk-end" and note.about[1] <= 1:
            return
        if note.kind == "unmap-walk-end" and note.about[2] == SWAP_FAIL:
            return
        look(page, "flags.mlocked")
        if page._flags & PG_mlocked or _cleared_after(page, begin.log_at):
            return
        for vma, _ in wanted:
            look(vma, "vm_flags")
        self._lost += [(page, vma, pte, begin) for vma, pte in wanted if vma.locked]

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for page, vma, pte, begin in self._lost:
            if page._flags & PG_mlocked or _cleared_after(page, begin.log_at):
                continue
            if (vma, pte) not in state.locked_mappings(page):
                continue
            if vma_was_locked_throughout(
                self._k, vma, begin.log_at, begin.objects_count
            ) and pte_was_mapped_throughout(self._k, pte, begin.log_at):
                walk = begin.kind.partition("-")[0].replace("unmap", "reclaim")
                yield Report(
                    self.id,
                    f"{pte.label()} in a VM_LOCKED vma maps {page.label()}, not PageMlocked: a "
                    f"{walk} walk passed it by",
                    "oracle",
                    (page.label(),),
                )
                return


def _maps(pte: Pte, page: Page) -> bool:
    return pte._value.kind == PRESENT and pte._value.page is page
