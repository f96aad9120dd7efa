"""What can be switched on and off: the twelve patches, commits, mutants, hypotheses.

A kernel is named by a spec, `v4.3+P02`, `v4.4-48ec833b7851`, and is a set of toggle names. v4.3 has
none of the series, v4.4 all of it and what else came with v4.4; commits that are in both are on in
both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Patch:
    """One toggle.

    toggle: its name in the code, `P02`. name: its name in a spec. files: what of kstate/mm it
    touches. requires: toggles that must be on with it. behaviour: False for text only.
    modelled: does the model have it yet. base: `series` or `v4.4` (on in v4.4, the latter not of
    the series), `both` (on in v4.3 and v4.4, may be taken out) or `neither` (off unless named).
    mail: who posted it, and when.
    """

    toggle: str
    name: str
    subject: str
    files: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    behaviour: bool = True
    modelled: bool = False
    base: str = "neither"
    mail: str = ""


def _series(number: int, clock: str, subject: str, **rest: object) -> Patch:
    name = f"P{number:02}"
    mail = f"Hugh Dickins, 2015-10-19 {clock} UTC, [PATCH {number}/12]"
    return Patch(name, name, subject, base="series", mail=mail, **rest)  # type: ignore[arg-type]


P01, P02, P03, P04, P05, P06 = "P01", "P02", "P03", "P04", "P05", "P06"
P07, P08, P09, P10, P11, P12 = "P07", "P08", "P09", "P10", "P11", "P12"
C_70feee0e1ef3 = "C_70feee0e1ef3"
C_e6c509f85455 = "C_e6c509f85455"
C_0610c25daa3e = "C_0610c25daa3e"
C_8bdd63809160 = "C_8bdd63809160"
C_48ec833b7851 = "C_48ec833b7851"
MUT_7B, MUT_7C, MUT_8B, MUT_12C = "MUT_7B", "MUT_7C", "MUT_8B", "MUT_12C"
MUT_4_LRUCARE = "MUT_4_LRUCARE"
CC_SPLIT_STORE = "CC_SPLIT_STORE"
ALT_TRYLOCK_UNDER_PTL, ALT_MM_USERS = "ALT_TRYLOCK_UNDER_PTL", "ALT_MM_USERS"
FIX_KSM_APPEND_FIRST, FIX_KSM_NO_FILE = "FIX_KSM_APPEND_FIRST", "FIX_KSM_NO_FILE"
FIX_THP_COW_MUNLOCK, FIX_THP_MUNLOCK_WALK = "FIX_THP_COW_MUNLOCK", "FIX_THP_MUNLOCK_WALK"
FIX_THP_UNDO_READ_ONLY = "FIX_THP_UNDO_READ_ONLY"
FIX_KSM_MLOCK_PTL, FIX_PEEK_UNDER_PTL = "FIX_KSM_MLOCK_PTL", "FIX_PEEK_UNDER_PTL"
FIX_CLEAR_REFS_WRITE_ENTRY = "FIX_CLEAR_REFS_WRITE_ENTRY"
FIX_CLEAR_REFS_PTE = "FIX_CLEAR_REFS_PTE"
FIX_KSM_MERGEABLE_VMA, FIX_KSM_STALE_NODE = "FIX_KSM_MERGEABLE_VMA", "FIX_KSM_STALE_NODE"
FIX_AIO_RING_FAULT = "FIX_AIO_RING_FAULT"
FIX_BALLOON_NEWPAGE = "FIX_BALLOON_NEWPAGE"
FIX_BALLOON_ENQUEUE_LOCK = "FIX_BALLOON_ENQUEUE_LOCK"
FIX_KSM_REFERENCED = "FIX_KSM_REFERENCED"
FIX_VMA_MERGE_FLAGS = "FIX_VMA_MERGE_FLAGS"
FIX_MEMCG_MOVE_END = "FIX_MEMCG_MOVE_END"
FIX_MPROTECT_SOFT_DIRTY = "FIX_MPROTECT_SOFT_DIRTY"
ALT_SINGLE_PAGE_MUNLOCK = "ALT_SINGLE_PAGE_MUNLOCK"

TABLE: tuple[Patch, ...] = (
    _series(1, "04:45", "mm Documentation: undoc non-linear vmas", behaviour=False, modelled=True),
    _series(
        2,
        "04:50",
        "mm: rmap use pte lock not mmap_sem to set PageMlocked",
        files=("rmap.py",),
        modelled=True,
    ),
    _series(
        3,
        "04:52",
        "mm: page migration fix PageMlocked on migrated pages",
        files=("migrate.py",),
        modelled=True,
    ),
    _series(
        4,
        "04:54",
        "mm: rename mem_cgroup_migrate to mem_cgroup_replace_page",
        files=("memcontrol.py", "migrate.py"),
        requires=("C_0610c25daa3e",),
        modelled=True,
    ),
    _series(
        5,
        "04:55",
        "mm: correct a couple of page migration comments",
        behaviour=False,
        modelled=True,
    ),
    _series(
        6,
        "04:57",
        "mm: page migration use the put_new_page whenever necessary",
        files=("migrate.py",),
        modelled=True,
    ),
    _series(
        7,
        "04:59",
        "mm: page migration trylock newpage at same level as oldpage",
        files=("balloon_compaction.py", "migrate.py"),
        modelled=True,
    ),
    _series(
        8,
        "05:01",
        "mm: page migration remove_migration_ptes at lock+unlock level",
        files=("migrate.py",),
        requires=("P07",),
        modelled=True,
    ),
    _series(
        9,
        "05:03",
        "mm: simplify page migration's anon_vma comment and flow",
        files=("migrate.py",),
        modelled=True,
    ),
    _series(
        10,
        "05:05",
        "mm: page migration use migration entry for swapcache too",
        files=("rmap.py",),
        modelled=True,
    ),
    _series(
        11,
        "05:07",
        "mm: page migration avoid touching newpage until no going back",
        files=("migrate.py",),
        requires=("C_0610c25daa3e", "C_8bdd63809160"),
        modelled=True,
    ),
    _series(
        12,
        "05:11",
        "mm: migrate dirty page without clear_page_dirty_for_io etc",
        files=("migrate.py",),
        modelled=True,
    ),
    Patch(
        C_70feee0e1ef3,
        "70feee0e1ef3",
        "mlock: fix mlock count can not decrease in race condition",
        files=("mlock.py",),
        modelled=True,
        mail="Yisheng Xie, v4.12, CVE-2017-18221",
    ),
    Patch(
        C_e6c509f85455,
        "e6c509f85455",
        "mm: clear_page_mlock in page_remove_rmap",
        files=("rmap.py", "truncate.py"),
        base="both",
        modelled=True,
        mail="Hugh Dickins, 2012-09-18, [PATCH 3/4]",
    ),
    Patch(
        C_0610c25daa3e,
        "0610c25daa3e",
        "memcg: fix dirty page migration",
        files=("migrate.py",),
        base="both",
        modelled=True,
        mail="Greg Thelen, v4.3-rc",
    ),
    Patch(
        C_8bdd63809160,
        "8bdd63809160",
        "mm: fix direct reclaim writeback regression",
        files=("migrate.py",),
        base="both",
        modelled=True,
        mail="Hugh Dickins, 2014-07-26",
    ),
    Patch(
        C_48ec833b7851,
        "48ec833b7851",
        "Revert mm/memory.c: share the i_mmap_rwsem",
        files=("memory.py",),
        base="both",
        modelled=True,
        mail="Kirill A. Shutemov, v3.19-rc; acked by Davidlohr Bueso, 2014-12-22",
    ),
    Patch(
        MUT_7B,
        "mutant:7b",
        "trylock of newpage fails inside move_to_new_page",
        files=("migrate.py",),
        modelled=True,
    ),
    Patch(
        MUT_7C,
        "mutant:7c",
        "anon_vma reference leaks where newpage is locked",
        files=("migrate.py",),
        requires=("P07",),
        modelled=True,
    ),
    Patch(
        MUT_8B,
        "mutant:8b",
        "old anonymous page's mapping cleared before its entries go",
        files=("migrate.py",),
        requires=("P08",),
        modelled=True,
    ),
    Patch(
        MUT_12C,
        "mutant:12c",
        "PG_dirty set on newpage after it became visible",
        files=("migrate.py",),
        requires=("P12",),
        modelled=True,
    ),
    Patch(
        MUT_4_LRUCARE,
        "mutant:4-lrucare",
        "page replaced without lrucare",
        files=("memcontrol.py",),
        requires=(P04,),
        modelled=True,
    ),
    Patch(
        CC_SPLIT_STORE,
        "cc:split-store",
        "the compiler stores an intermediate vm_flags",
        files=("mprotect.py",),
        modelled=True,
    ),
    Patch(
        ALT_SINGLE_PAGE_MUNLOCK,
        "alt:single-page-munlock",
        "munlock takes the single-page path for every small page",
        files=("mlock.py",),
        modelled=True,
    ),
    Patch(
        ALT_TRYLOCK_UNDER_PTL,
        "alt:trylock-under-ptl",
        "mmap_sem trylock kept, under the ptl",
        files=("rmap.py",),
        requires=(P02,),
        modelled=True,
        mail="Vlastimil Babka asked, Hugh Dickins was against, 2015-10-19",
    ),
    Patch(
        ALT_MM_USERS,
        "alt:mm-users",
        "mm_users tested after the mmap_sem trylock",
        files=("rmap.py",),
        modelled=True,
        mail="quoted by Kirill A. Shutemov, 2015-09-14",
    ),
    Patch(
        FIX_KSM_MLOCK_PTL,
        "fix:ksm-mlock-ptl",
        "KSM marks pages under the pte lock (X4)",
        files=("ksm.py",),
        modelled=True,
    ),
    Patch(
        FIX_KSM_APPEND_FIRST,
        "fix:ksm-append-first",
        "KSM lets rmap walks know of a place before it maps a page there (X-ksm-append)",
        files=("ksm.py",),
        modelled=True,
    ),
    Patch(
        FIX_THP_COW_MUNLOCK,
        "fix:thp-cow-munlock",
        "copying a huge page munlocks the old one (X-thp-cow)",
        files=("huge_memory.py",),
        modelled=True,
    ),
    Patch(
        FIX_THP_MUNLOCK_WALK,
        "fix:thp-munlock-walk",
        "munlock's walk finds a huge page's mappings (X-thp-munlock)",
        files=("rmap.py",),
        modelled=True,
    ),
    Patch(
        FIX_THP_UNDO_READ_ONLY,
        "fix:thp-undo-read-only",
        "a huge page's new mapping may be written through once it is for good (X-thp-undo)",
        files=("migrate.py",),
        modelled=True,
    ),
    Patch(
        FIX_KSM_NO_FILE,
        "fix:ksm-no-file",
        "KSM leaves mappings of files alone (X-ksm-truncate)",
        files=("ksm.py",),
        modelled=True,
    ),
    Patch(
        FIX_PEEK_UNDER_PTL,
        "fix:peek-under-ptl",
        "page_check_address never peeks (X7)",
        files=("rmap.py",),
        modelled=True,
    ),
    Patch(
        FIX_AIO_RING_FAULT,
        "fix:aio-ring-fault",
        "a fault never reads a page of an aio ring (X9)",
        files=("filemap.py",),
        modelled=True,
    ),
    Patch(
        FIX_CLEAR_REFS_WRITE_ENTRY,
        "fix:clear-refs-write-entry",
        "clear_refs makes WRITE migration entries READ (X8)",
        files=("task_mmu.py",),
        modelled=True,
    ),
    Patch(
        FIX_CLEAR_REFS_PTE,
        "fix:clear-refs-pte",
        "mm: clear pte in clear_soft_dirty() (X-clear-refs)",
        files=("task_mmu.py",),
        base="v4.4",
        modelled=True,
        mail="Laurent Dufour, v4.4",
    ),
    Patch(
        FIX_KSM_MERGEABLE_VMA,
        "fix:ksm-mergeable-vma",
        "ksm: use find_mergeable_vma in try_to_merge_with_ksm_page (X-ksm-vma)",
        files=("ksm.py",),
        base="v4.4",
        modelled=True,
        mail="Andrea Arcangeli, 2015-11-02, [PATCH 4/5]",
    ),
    Patch(
        FIX_KSM_STALE_NODE,
        "fix:ksm-stale-node",
        "ksm: don't fail stable tree lookups if walking over stale stable_nodes",
        files=("ksm.py",),
        base="v4.4",
        modelled=True,
        mail="Andrea Arcangeli, 2015-11-02, [PATCH 2/5]",
    ),
    Patch(
        FIX_BALLOON_NEWPAGE,
        "fix:balloon-newpage",
        "whether newpage is a balloon's is known before others can move it",
        files=("migrate.py",),
        modelled=True,
    ),
    Patch(
        FIX_BALLOON_ENQUEUE_LOCK,
        "fix:balloon-enqueue-lock",
        "a balloon waits for the lock of a page that it has just allocated (X-balloon-enqueue)",
        files=("balloon_compaction.py",),
        modelled=True,
    ),
    Patch(
        FIX_KSM_REFERENCED,
        "fix:ksm-referenced",
        "page_referenced walks a page as what it was when it was locked or not (X-ksm-referenced)",
        files=("rmap.py",),
        modelled=True,
    ),
    Patch(
        FIX_VMA_MERGE_FLAGS,
        "fix:vma-merge-flags",
        "of two vmas that merge, the one that has the new flags stays (X-vma-merge)",
        files=("mmap.py",),
        modelled=True,
    ),
    Patch(
        FIX_MEMCG_MOVE_END,
        "fix:memcg-move-end",
        "a move of charges waits for those who read the old group before it ends (X-memcg-stat)",
        files=("memcontrol.py",),
        modelled=True,
    ),
    Patch(
        FIX_MPROTECT_SOFT_DIRTY,
        "fix:mprotect-soft-dirty",
        "mprotect makes a pte writable at once only where a write has nothing to tell "
        "(X-mprotect-soft-dirty)",
        files=("mprotect.py",),
        modelled=True,
    ),
)

SERIES: tuple[str, ...] = tuple(p.toggle for p in TABLE if p.base == "series")
CAME_WITH_V44: tuple[str, ...] = tuple(p.toggle for p in TABLE if p.base == "v4.4")
ALL: frozenset[str] = frozenset(p.toggle for p in TABLE)
BY_NAME: dict[str, Patch] = {p.name: p for p in TABLE}
BY_TOGGLE: dict[str, Patch] = {p.toggle: p for p in TABLE}
SPEC = re.compile(r"v4\.[34]")
ITEM = re.compile(r"([+-])((?:mutant|cc|alt|fix|x):[A-Za-z0-9-]+|[^+-]+)")

# The kernel on which every test expects nothing.
CLEAN = (
    "v4.4+70feee0e1ef3+fix:aio-ring-fault+fix:balloon-enqueue-lock+fix:balloon-newpage"
    "+fix:clear-refs-write-entry+fix:ksm-append-first+fix:ksm-mlock-ptl+fix:ksm-no-file"
    "+fix:ksm-referenced+fix:memcg-move-end+fix:mprotect-soft-dirty+fix:peek-under-ptl"
    "+fix:thp-cow-munlock+fix:thp-munlock-walk+fix:thp-undo-read-only+fix:vma-merge-flags"
)


class SpecError(ValueError):
    """A kernel spec that does not name a kernel. `at`: the column of what is wrong, from 0."""

    def __init__(self, text: str, at: int = 0) -> None:
        super().__init__(text)
        self.at = at


@dataclass(frozen=True)
class KernelSpec:
    """A kernel by name and by toggles. Two specs that mean one kernel are equal.

    text: the canonical spelling. toggles: what `k.patches` will be."""

    text: str
    toggles: frozenset[str]

    def __str__(self) -> str:
        return self.text


_PARSED: dict[str, KernelSpec] = {}


def parse_spec(text: str) -> KernelSpec:
    """Parse `(v4.3|v4.4)([+-]item)*`.

    Raises:
        SpecError: not a spec, an unknown item, an item not modelled yet, or an unmet `requires`.
    """
    known = _PARSED.get(text)
    if known is None:
        known = _PARSED[text] = _parse(text)
    return known


def _parse(text: str) -> KernelSpec:
    base = SPEC.match(text)
    if base is None:
        raise SpecError(f"kernel spec {text!r} must begin with v4.3 or v4.4")
    on = _base_toggles(base.group())
    at = base.end()
    while at < len(text):
        item = ITEM.match(text, at)
        if item is None:
            raise SpecError(f"kernel spec {text!r}: expected + or - and a name", at)
        sign, name = item[1], _known_name(text, at + 1) or item[2]
        patch = BY_NAME.get(name) or (own_toggle(name) if name in own_names() else None)
        if patch is None and name.startswith("x:"):
            raise SpecError(f"kernel spec {text!r}: no line of kstate asks for {name!r}", at + 1)
        if patch is None:
            raise SpecError(f"kernel spec {text!r}: unknown patch {name!r}", at + 1)
        if not patch.modelled:
            raise SpecError(f"kernel spec {text!r}: {name} is not modelled yet", at + 1)
        on = on | {patch.toggle} if sign == "+" else on - {patch.toggle}
        at += 1 + len(name)
    for toggle in sorted(on):
        for needed in BY_TOGGLE[toggle].requires if toggle in BY_TOGGLE else ():
            if BY_TOGGLE[needed].modelled and needed not in on:
                raise SpecError(
                    f"kernel spec {text!r}: {BY_TOGGLE[toggle].name} "
                    f"requires {BY_TOGGLE[needed].name}"
                )
    return KernelSpec(_canonical(base.group(), on), on)


def _known_name(text: str, at: int) -> str:
    """The longest name of a patch that stands there: names have hyphens too."""
    known = (*BY_NAME, *own_names())
    names = (name for name in known if re.match(re.escape(name) + r"(?=[+-]|\Z)", text[at:]))
    return max(names, key=len, default="")


@cache
def own_names() -> frozenset[str]:
    """The reader's own toggles: every `"x:name"` in kstate's sources."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    found = (re.findall(r'"(x:[A-Za-z0-9-]+)"', path.read_text("utf-8")) for path in sources)
    return frozenset(name for names in found for name in names)


def own_toggle(name: str) -> Patch:
    """A toggle of the reader's own, `x:name`: in the code it is `"x:name" in k.patches`."""
    return Patch(name, name, "your own", modelled=True)


def _base_toggles(version: str) -> frozenset[str]:
    bases = ("series", "v4.4", "both") if version == "v4.4" else ("both",)
    return frozenset(p.toggle for p in TABLE if p.base in bases and p.modelled)


def _canonical(version: str, on: frozenset[str]) -> str:
    """The shortest spelling from `version`: what is missing, then what is more, each sorted."""
    base = _base_toggles(version)
    names = {
        toggle: BY_TOGGLE[toggle].name if toggle in BY_TOGGLE else toggle for toggle in on | base
    }
    missing = sorted("-" + names[toggle] for toggle in base - on)
    more = sorted("+" + names[toggle] for toggle in on - base)
    return version + "".join(missing + more)
