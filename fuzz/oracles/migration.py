"""What a migration must leave alone. Patches: P06, P08, P10, P11, P12, 8bdd63809160."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.flags import PAGE_FLAG_NAMES, PG_head, PG_locked
from kstate.machine import (
    Note,
    Report,
    look,
)
from kstate.structs import ANON, Kernel, Page


class _DuringMigration:
    """Knows which task is migrating what: the note of its migration's beginning."""

    def __init__(self, k: Kernel) -> None:
        self.begun: dict[int, Note] = {}
        k.machine.subscribe("migration-begin", self._begin)
        k.machine.subscribe("migration-end", self._end)

    def _begin(self, note: Note) -> None:
        self.begun[note.task] = note

    def _end(self, note: Note) -> None:
        self.begun.pop(note.task, None)


class MigrationDirtiesNothing:
    """A migration moves a dirty page; it does not dirty its new page once more.

    Invariant:   kernel-reference I11: NR_DIRTIED and its like are counts of what users did.
    Patches:     P12.
    Not checked: the old page: a pte may have been dirty.
    """

    id = "extra-dirty-accounting"

    def attach(self, k: Kernel) -> None:
        self._migration = _DuringMigration(k)
        self._found: list[Report] = []
        k.machine.subscribe("page-dirtied", self._dirtied)

    def _dirtied(self, note: Note) -> None:
        begin = self._migration.begun.get(note.task)
        if begin is not None and note.about[0] is begin.about[1]:
            old, new = begin.about
            self._found.append(
                Report(
                    self.id,
                    f"migration of {old.label()} counts {new.label()} as dirtied: NR_DIRTIED, the "
                    "task's write_bytes and nr_dirtied go up though nobody wrote",
                    "oracle",
                    (old.label(), new.label()),
                )
            )

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from self._found


class MigrationMakesNoSwapEntry:
    """Migration of a mapped page leaves a migration entry, never a swap entry.

    Invariant:   kernel-reference I18.          Patches: P10.
    Not checked: entries that reclaim made beside it.
    """

    id = "migration-made-swap-entry"

    def attach(self, k: Kernel) -> None:
        self._migration = _DuringMigration(k)
        self._found: list[Report] = []
        k.machine.subscribe("swap-entry-made", self._made)

    def _made(self, note: Note) -> None:
        page, pte = note.about
        begin = self._migration.begun.get(note.task)
        if begin is not None and begin.about[0] is page:
            self._found.append(
                Report(
                    self.id,
                    f"migration of {page.label()} leaves a swap entry in {pte.label()}: the next "
                    "access has to fault",
                    "oracle",
                    (page.label(), pte.label()),
                )
            )

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from self._found


class AnonymousPageStaysAnonymous:
    """PageAnon, once true, stays true until the page is freed: whoever holds a reference to the old
    page after its migration can still tell.

    Invariant:   kernel-reference I14.          Patches: P08.
    Not checked: migrations after which nobody else has a reference.
    """

    id = "page-anon-lost"

    def attach(self, k: Kernel) -> None:
        self._anon: dict[int, bool] = {}
        self._found: list[Report] = []
        k.machine.subscribe("migration-begin", self._begin)
        k.machine.subscribe("migration-end", self._end)

    def _begin(self, note: Note) -> None:
        look(note.about[0], "mapping")
        self._anon[note.task] = isinstance(note.about[0]._mapping, ANON)

    def _end(self, note: Note) -> None:
        page, newpage = note.about[:2]
        was = self._anon.pop(note.task, False)
        look(page, "mapping")
        look(page, "refcount")
        if was and not isinstance(page._mapping, ANON) and page._refcount > 1:
            self._found.append(
                Report(
                    self.id,
                    f"{page.label()} is not PageAnon any more after its migration to "
                    f"{newpage.label()}, but somebody still holds a reference",
                    "oracle",
                    (page.label(),),
                )
            )

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from self._found


_IDENTITY = {
    "mapping": "mapping",
    "index": "index",
    "mem_cgroup": "mem_cgroup",
    "flags.swapbacked": "PG_swapbacked",
}


class FailedMigrationLeavesNewpageAlone:
    """A newpage whose migration fails has never had anything of the old page's identity.

    Invariant:   kernel-reference I20.          Patches: P11.
    Not checked: NUMA migration of huge pages, which makes the copy first. What is left in the end
                 is newpage-residue.
    """

    id = "newpage-touched-early"

    def attach(self, k: Kernel) -> None:
        self._begun: dict[int, Note] = {}
        self._failed: list[tuple[Note, Note]] = []
        k.machine.subscribe("migration-begin", self._begin)
        k.machine.subscribe("migration-end", self._end)

    def _begin(self, note: Note) -> None:
        self._begun[note.task] = note

    def _end(self, note: Note) -> None:
        begin = self._begun.pop(note.task)
        if note.about[2] != 0:
            self._failed.append((begin, note))

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for begin, end in self._failed:
            newpage = begin.about[1]
            for event in state.k.machine.events(begin.log_at):
                if event.log_at >= end.log_at:
                    break
                if event.operand != newpage.id:
                    continue
                primitive = event.point.primitive
                if primitive.name in ("store", "set_bit") and primitive.word in _IDENTITY:
                    yield Report(
                        self.id,
                        f"{newpage.label()} had the {_IDENTITY[primitive.word]} of "
                        f"{begin.about[0].label()} for a while, though its migration failed",
                        "oracle",
                        (newpage.label(),),
                    )
                    break


class PoolGetsItsPagesBack:
    """A page handed out by a pool's get_new_page is migrated to, or comes back by put_new_page.

    Invariant:   kernel-reference I12.          Patches: P06.
    Not checked: mid-run.
    """

    id = "pool-leak"

    def attach(self, k: Kernel) -> None:
        self._out: dict[int, Page] = {}
        for kind, tell in (
            ("pool-get", self._get),
            ("pool-put", self._put),
            ("page-moved", self._moved),
        ):
            k.machine.subscribe(kind, tell)

    def _get(self, note: Note) -> None:
        self._out[note.about[0].pfn] = note.about[0]

    def _put(self, note: Note) -> None:
        self._out.pop(note.about[0].pfn, None)

    def _moved(self, note: Note) -> None:
        self._out.pop(note.about[1].pfn, None)

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for page in self._out.values():
            yield Report(
                self.id,
                f"{page.label()} of the pool was handed out, not migrated to, and never given back",
                "oracle",
                (page.label(),),
            )


class UnusedNewpageIsPristine:
    """A page that comes back to its pool is as it was handed out: no mapping, its old index, no
    flag.

    Invariant:   kernel-reference I13.          Patches: P11, 8bdd63809160.
    Not checked: the page lock and references, which a previous user of the page may have.
    """

    id = "newpage-residue"

    def attach(self, k: Kernel) -> None:
        self._index: dict[int, int] = {}
        self._found: list[Report] = []
        k.machine.subscribe("pool-get", self._get)
        k.machine.subscribe("pool-put", self._put)

    def _get(self, note: Note) -> None:
        page = note.about[0]
        self._index[page.pfn] = page._index

    def _put(self, note: Note) -> None:
        page: Page = note.about[0]
        look(page)
        left = [
            name
            for bit, name in PAGE_FLAG_NAMES.items()
            if page._flags & bit and bit not in (PG_locked, PG_head)
        ]
        if page._index != self._index.get(page.pfn, page._index):
            left.append("index")
        if page._mapping is not None:
            left.append("mapping")
        if page._mem_cgroup is not None:
            left.append("mem_cgroup")
        if left:
            self._found.append(
                Report(
                    self.id,
                    f"{page.label()} comes back to its pool with {', '.join(left)} of the page it "
                    "was not migrated to",
                    "oracle",
                    (page.label(),),
                )
            )

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        yield from self._found
