"""Migration entries do not outlive their migration."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.flags import PG_locked
from kstate.machine import (
    Note,
    Report,
    look,
)
from kstate.structs import MIGRATION, Kernel, Page


class MigrationEntryNamesALockedPage:
    """A migration entry names a page that is PageLocked; none is left when all is quiet.

    Invariant:   kernel-reference I9. Looked at whenever a migration ends.
    Not checked: between those moments.
    """

    id = "migration-entry-left"

    def attach(self, k: Kernel) -> None:
        self._k = k
        self._left: list[Report] = []
        k.machine.subscribe("migration-end", self._look)

    def _look(self, note: Note) -> None:
        old: Page = note.about[0]
        look(old, "flags.locked")
        for mm in self._k.processes.values():
            for pte in mm.ptes.values():
                look(pte, "pte")
                value = pte._value
                if value.kind == MIGRATION and value.page is old and not old._flags & PG_locked:
                    self._left.append(self._report(pte.label(), old.label()))

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from self._left
        for pte in state.entries:
            page = pte._value.page
            yield self._report(pte.label(), page.label() if page else "?")

    def _report(self, pte: str, page: str) -> Report:
        text = f"{pte} still holds a migration entry for {page}, whose migration is over"
        return Report(self.id, text, "oracle", (pte, page))
