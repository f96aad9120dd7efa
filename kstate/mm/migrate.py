"""mm/migrate.c: moving a page's content to another page under everybody's feet."""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import (
    EACCES,
    EAGAIN,
    EBUSY,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOMEM,
    FOLL_DUMP,
    FOLL_GET,
    MIGRATE_ASYNC,
    MIGRATE_SYNC,
    MIGRATEPAGE_SUCCESS,
    NR_FILE_DIRTY,
    NR_FILE_PAGES,
    NR_MLOCK,
    NR_SHMEM,
    PGMIGRATE_FAIL,
    PGMIGRATE_SUCCESS,
    SWAP_AGAIN,
    TTU_IGNORE_ACCESS,
    TTU_IGNORE_MLOCK,
    TTU_MIGRATION,
    VM_FAULT_FROZEN,
    VM_LOCKED,
    VM_WRITE,
    PG_locked,
    PG_mlocked,
    PG_unevictable,
    PG_writeback,
)
from kstate.fs import aio, buffer, fuse
from kstate.machine import (
    down_read,
    local_irq_enable,
    look,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    retry_when_changed,
    spin_lock,
    spin_lock_irq,
    spin_unlock,
    spin_unlock_irq,
    touch,
    up_read,
)
from kstate.mm import (
    balloon_compaction,
    gup,
    huge_memory,
    hugetlb,
    ksm,
    memcontrol,
    memory,
    mlock,
    mmap,
    page_alloc,
    page_writeback,
    rmap,
    swap,
    util,
    vmscan,
)
from kstate.mm.debug import BUG, BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageDirty,
    ClearPagePrivate,
    ClearPageSwapBacked,
    ClearPageSwapCache,
    PageAnon,
    PageAnonNotKsm,
    PageBalloon,
    PageDirty,
    PageHuge,
    PagePrivate,
    PageReferenced,
    PageSwapBacked,
    PageSwapCache,
    PageUptodate,
    PageWriteback,
    SetPageActive,
    SetPageDirty,
    SetPagePrivate,
    SetPageReferenced,
    SetPageSwapBacked,
    SetPageSwapCache,
    SetPageUnevictable,
    SetPageUptodate,
    TestClearPageActive,
    TestClearPageMlocked,
    TestClearPageUnevictable,
    TestSetPageMlocked,
    get_page,
    get_page_unless_zero,
    lock_page,
    page_count,
    page_freeze_refs,
    page_mapcount,
    page_mapped,
    page_private_refs,
    page_unfreeze_refs,
    peek,
    set_page_locked,
    trylock_page,
    unlock_page,
    wait_on_page_locked,
    wait_on_page_writeback,
)
from kstate.patches import (
    FIX_BALLOON_NEWPAGE,
    FIX_THP_UNDO_READ_ONLY,
    MUT_7B,
    MUT_7C,
    MUT_8B,
    MUT_12C,
    P03,
    P04,
    P06,
    P07,
    P08,
    P09,
    P11,
    P12,
    C_0610c25daa3e,
    C_8bdd63809160,
)
from kstate.structs import (
    MIGRATION,
    PRESENT,
    AddressSpace,
    AnonVma,
    BufferHead,
    Kernel,
    MmStruct,
    Page,
    Pte,
    PteVal,
    VmAreaStruct,
    pte_mkdirty,
    pte_same,
    pte_with,
    ptep_get_and_clear,
    radix_tree_lookup,
    radix_tree_store,
    set_pte_at,
)

NewPage = Callable[[Page], Page | None]
FreePage = Callable[[Page], None]
PASSES_MAX = 10


def make_migration_entry(page: Page, write: bool) -> PteVal:
    """A pte that says: wait for this page.

    Source:   include/linux/swapops.h make_migration_entry(), v4.3.
    Bugs:     BUG: page not locked.
    """
    BUG_ON(not peek(page, PG_locked), "bug-make-migration-entry-unlocked", "!PageLocked(page)")
    return PteVal(MIGRATION, page, write)


def migration_entry_to_page(value: PteVal) -> Page:
    """The old page an entry names.

    Source:   include/linux/swapops.h migration_entry_to_page(), v4.3.
    Bugs:     BUG: page not locked: the entry outlived its migration.
    """
    page = value.page
    assert page is not None
    BUG_ON(not peek(page, PG_locked), "bug-migration-entry-unlocked", "!PageLocked(p)")
    return page


def putback_movable_pages(k: Kernel, pages: list[Page]) -> None:
    """Put back what was not migrated.

    Source:   mm/migrate.c putback_movable_pages(), v4.3.
    """
    for page in pages:
        if PageHuge(page):
            hugetlb.putback_active_hugepage(k, page)
            continue
        page.zone.stat[vmscan.isolated_counter(page)] -= 1
        if PageBalloon(page):
            balloon_compaction.balloon_page_putback(k, page)
        else:
            vmscan.putback_lru_page(k, page)


def remove_migration_pte(k: Kernel, new: Page, vma: VmAreaStruct, address: int, old: Page) -> int:
    """Turn one migration entry for `old` back into a pte, of `new`.

    Source:   mm/migrate.c remove_migration_pte(), v4.3.       Patches: P03.
    Context:  new page locked, rmap lock held for read; takes the ptl, without a peek first.
    Returns:  SWAP_AGAIN: the walk goes on to every vma.
    """
    pte = memory.pte_offset(vma.vm_mm, address)
    spin_lock(pte.lock)
    entry = pte.value
    if entry.kind != MIGRATION or migration_entry_to_page(entry) is not old:
        spin_unlock(pte.lock)
        return SWAP_AGAIN
    get_page(new)
    writable = vma.prot_write or (entry.write and bool(vma.vm_flags & VM_WRITE))
    set_pte_at(pte, PteVal(PRESENT, new, write=writable, soft_dirty=entry.soft_dirty))
    anon = PageAnon(new)
    if PageHuge(new):
        if anon:
            rmap.hugepage_add_anon_rmap(new, vma, address)
        else:
            rmap.page_dup_rmap(new)
    elif anon:
        rmap.page_add_anon_rmap(new, vma, address)
    else:
        rmap.page_add_file_rmap(new)
    if P03 in k.patches:
        if vma.vm_flags & VM_LOCKED:
            mlock.mlock_vma_page(k, new)
    spin_unlock(pte.lock)
    return SWAP_AGAIN


def remove_migration_ptes(k: Kernel, old: Page, new: Page) -> None:
    """Turn every migration entry for `old` back into a pte, of `new`.

    Source:   mm/migrate.c remove_migration_ptes(), v4.3.
    Context:  new page locked; an anonymous page's anon_vma is held by reference.
    """
    rmap.rmap_walk(
        k,
        new,
        lambda vma, address: remove_migration_pte(k, new, vma, address, old),
        by_mapcount=False,
    )


def migration_entry_wait(k: Kernel, pte: Pte) -> int:
    """A fault met a migration entry: wait until that migration is over.

    Source:   mm/migrate.c migration_entry_wait(), __migration_entry_wait(), v4.3.
    Context:  mmap_sem held for read; takes the ptl.
    Returns:  0, or VM_FAULT_FROZEN: its count is frozen, the migration is about to replace it.
    Bugs:     BUG: the old page is not locked.
    """
    spin_lock(pte.lock)
    value = pte.value
    if value.kind != MIGRATION:
        spin_unlock(pte.lock)
        return 0
    page = migration_entry_to_page(value)
    if not get_page_unless_zero(page):
        spin_unlock(pte.lock)
        return VM_FAULT_FROZEN
    spin_unlock(pte.lock)
    wait_on_page_locked(page)
    swap.put_page(k, page)
    return 0


def migration_entry_unfrozen(pte: Pte) -> None:
    """Sleep while a fault would only meet the same frozen count again.

    Source:   none: the kernel faults again and again, see MODEL.md.
    """
    value = pte._value
    page = value.page
    look(pte)
    if page is not None:
        look(page)
    if value.kind == MIGRATION and page is not None and page._refcount == 0:
        retry_when_changed((pte, "_value"), (page, "_refcount"))


def migrate_page_move_mapping(
    k: Kernel,
    mapping: AddressSpace | None,
    newpage: Page,
    page: Page,
    *,
    head: BufferHead | None = None,
    mode: int = MIGRATE_SYNC,
    extra: int = 0,
) -> int:
    """Let newpage take page's place in its file or in the swap cache.

    Source:   mm/migrate.c migrate_page_move_mapping(), v4.3.  Patches: P11, P12, mutant:12c.
    Context:  both pages locked, page unmapped; takes tree_lock.
    Args:     head: its buffers; with MIGRATE_ASYNC they come back locked. extra: references that
              the caller knows of.
    Returns:  0, or -EAGAIN: somebody else has a reference, or a buffer's lock.
    """
    if mapping is None:
        if page_count(page) != 1 + extra:
            return EAGAIN
        if P11 in k.patches:
            take_over_identity(k, newpage, page)
        return MIGRATEPAGE_SUCCESS
    expected = 2 + extra + page_private_refs(page)
    spin_lock_irq(mapping.tree_lock)
    index = util.page_index(k, page, mapping)
    if page_count(page) != expected or radix_tree_lookup(mapping, index) is not page:
        spin_unlock_irq(mapping.tree_lock)
        return EAGAIN
    if not page_freeze_refs(page, expected):
        spin_unlock_irq(mapping.tree_lock)
        return EAGAIN
    if head is not None and mode == MIGRATE_ASYNC and not buffer_migrate_lock_buffers(head, mode):
        page_unfreeze_refs(page, expected)
        spin_unlock_irq(mapping.tree_lock)
        return EAGAIN
    if P11 in k.patches:
        take_over_identity(k, newpage, page)  # nobody can have found newpage before this
    get_page(newpage)
    swap_cache = PageSwapCache(page)
    if swap_cache:
        SetPageSwapCache(newpage)
        newpage.private = page.private
    dirty = False
    if P12 in k.patches:
        if MUT_12C not in k.patches:
            dirty = move_dirty(newpage, page)
    radix_tree_store(mapping, index, newpage)
    page_unfreeze_refs(page, expected - 1)
    if P12 in k.patches:
        spin_unlock(mapping.tree_lock)  # interrupts stay off
        if MUT_12C in k.patches:
            dirty = move_dirty(newpage, page)
    move_counters(mapping, newpage, page, PageSwapBacked(page) and not swap_cache, dirty)
    if P12 in k.patches:
        local_irq_enable(k.machine)
    else:
        spin_unlock_irq(mapping.tree_lock)
    return MIGRATEPAGE_SUCCESS


def migrate_huge_page_move_mapping(
    k: Kernel, mapping: AddressSpace | None, newpage: Page, page: Page
) -> int:
    """Let newpage take page's place in its hugetlbfs file.

    Source:   mm/migrate.c migrate_huge_page_move_mapping(), v4.3.     Patches: P11.
    Context:  both pages locked, page unmapped; takes tree_lock.
    Returns:  as migrate_page_move_mapping.
    Bugs:     BUG, of ours: no mapping. v4.3 has a branch for that, which nothing can reach: such
              a page goes to migrate_page().
    """
    if mapping is None:
        BUG("bug-hugetlb-null-mapping", "migrate_huge_page_move_mapping() without a mapping")
        return EAGAIN
    expected = 2 + page_private_refs(page)
    spin_lock_irq(mapping.tree_lock)
    index = util.page_index(k, page, mapping)
    if page_count(page) != expected or radix_tree_lookup(mapping, index) is not page:
        spin_unlock_irq(mapping.tree_lock)
        return EAGAIN
    if not page_freeze_refs(page, expected):
        spin_unlock_irq(mapping.tree_lock)
        return EAGAIN
    if P11 in k.patches:
        newpage.index = page.index
        newpage.mapping = page.mapping
    get_page(newpage)
    radix_tree_store(mapping, index, newpage)
    page_unfreeze_refs(page, expected - 1)
    spin_unlock_irq(mapping.tree_lock)
    return MIGRATEPAGE_SUCCESS


def take_over_identity(k: Kernel, newpage: Page, page: Page) -> None:
    """What the page is charged to, belongs to, and where.

    Source:   mm/migrate.c migrate_page_move_mapping(), v4.4; move_to_new_page(), v4.3.
                                               Patches: 0610c25daa3e.
    """
    if C_0610c25daa3e in k.patches:
        newpage.mem_cgroup = page.mem_cgroup
    newpage.index = page.index
    newpage.mapping = page.mapping
    if PageSwapBacked(page):
        SetPageSwapBacked(newpage)


def move_dirty(newpage: Page, page: Page) -> bool:
    """Source: mm/migrate.c migrate_page_move_mapping(), v4.4: no accounting, the pair stays dirty.

    Context:  tree_lock held.
    """
    dirty = PageDirty(page)
    if dirty:
        ClearPageDirty(page)
        SetPageDirty(newpage)
    return dirty


def move_counters(
    mapping: AddressSpace, newpage: Page, page: Page, shmem: bool, dirty: bool
) -> None:
    """What one zone counts less the other counts more; within one zone there is nothing to do.

    Source:   mm/migrate.c migrate_page_move_mapping(), v4.4.
    Args:     dirty: PG_dirty was moved, and its count is to follow.
    """
    moved = [NR_FILE_PAGES]
    if shmem:
        moved.append(NR_SHMEM)
    if dirty and mapping.accounts_dirty:
        moved.append(NR_FILE_DIRTY)
    for counter in moved:
        page.zone.stat[counter] -= 1
        newpage.zone.stat[counter] += 1


def migrate_page_copy(k: Kernel, newpage: Page, page: Page) -> None:
    """Copy a page's content and flags.

    Source:   mm/migrate.c migrate_page_copy(), v4.3.          Patches: P03, P12.
    Context:  both pages locked.
    Bugs:     VM_BUG: active and unevictable together.
    Left out: error, checked, mappedtodisk, young and idle.
    """
    look(page, "content")
    touch(newpage, "content")
    newpage._token = page._token
    if page.nr_pages == 1:  # else not for good yet
        k.machine.note("page-moved", page, newpage)
    if PageReferenced(page):
        SetPageReferenced(newpage)
    if PageUptodate(page):
        SetPageUptodate(newpage)
    if TestClearPageActive(page):
        VM_BUG_ON_PAGE(
            peek(page, PG_unevictable) != 0,
            "vm-bug-migrate-page-copy-active-unevictable",
            "PageUnevictable(page)",
        )
        SetPageActive(newpage)
    elif TestClearPageUnevictable(page):
        SetPageUnevictable(newpage)
    if P12 in k.patches:
        if PageDirty(page):
            SetPageDirty(newpage)
    else:
        if PageDirty(page):
            page_writeback.clear_page_dirty_for_io(k, page)
            if PageSwapBacked(page):
                SetPageDirty(newpage)
            else:
                page_writeback.__set_page_dirty_nobuffers(k, newpage)
    if P03 not in k.patches:
        mlock_migrate_page(newpage, page)
    ksm.ksm_migrate_page(newpage, page)
    if PageSwapCache(page):
        ClearPageSwapCache(page)
    page.private = 0
    if PageWriteback(newpage):
        page_writeback.end_page_writeback(k, newpage)


def mlock_migrate_page(newpage: Page, page: Page) -> None:
    """Move PG_mlocked along. A page that was unmapped has lost the flag by then.

    Source:   mm/internal.h mlock_migrate_page(), v4.3.
    """
    if TestClearPageMlocked(page):
        page.zone.stat[NR_MLOCK] -= page.nr_pages
        TestSetPageMlocked(newpage)
        newpage.zone.stat[NR_MLOCK] += page.nr_pages


def migrate_page(k: Kernel, mapping: AddressSpace | None, newpage: Page, page: Page) -> int:
    """Migrate a page that has no buffers.

    Source:   mm/migrate.c migrate_page(), v4.3.
    Context:  both pages locked.               Bugs: BUG: under writeback.
    """
    BUG_ON(peek(page, PG_writeback) != 0, "bug-migrate-page-writeback", "PageWriteback(page)")
    rc = migrate_page_move_mapping(k, mapping, newpage, page)
    if rc != MIGRATEPAGE_SUCCESS:
        return rc
    migrate_page_copy(k, newpage, page)
    return MIGRATEPAGE_SUCCESS


def buffer_migrate_lock_buffers(head: BufferHead, mode: int) -> bool:
    """Lock a page's buffers: by trylock where that may not sleep.

    Source:   mm/migrate.c buffer_migrate_lock_buffers(), v4.3.
    Context:  tree_lock held with MIGRATE_ASYNC; else sleeps.
    """
    if mode == MIGRATE_ASYNC:
        return mutex_trylock(head.lock)
    mutex_lock(head.lock)
    return True


def buffer_migrate_page(
    k: Kernel, mapping: AddressSpace, newpage: Page, page: Page, mode: int
) -> int:
    """Migrate a page of a disk file, its buffers with it.

    Source:   mm/migrate.c buffer_migrate_page(), v4.3.
    Context:  both pages locked; takes the buffers' lock.
    """
    if not PagePrivate(page):
        return migrate_page(k, mapping, newpage, page)
    head = page.buffers
    assert head is not None
    rc = migrate_page_move_mapping(k, mapping, newpage, page, head=head, mode=mode)
    if rc != MIGRATEPAGE_SUCCESS:
        return rc
    if mode != MIGRATE_ASYNC:
        buffer_migrate_lock_buffers(head, mode)
    ClearPagePrivate(page)
    page.buffers = None
    swap.put_page(k, page)
    get_page(newpage)
    newpage.buffers = head
    SetPagePrivate(newpage)
    migrate_page_copy(k, newpage, page)
    mutex_unlock(head.lock)
    return MIGRATEPAGE_SUCCESS


def writeout(k: Kernel, mapping: AddressSpace, page: Page) -> int:
    """Write a dirty page out, so that it can be migrated another time.

    Source:   mm/migrate.c writeout(), v4.3.
    Context:  page locked, unlocked for the write and locked again; its entries are gone by then.
    Returns:  -EAGAIN; -EINVAL: there is nothing to write it with.
    """
    if mapping.fs != "fuse":
        return EINVAL
    if not page_writeback.clear_page_dirty_for_io(k, page):
        return EAGAIN
    remove_migration_ptes(k, page, page)
    fuse.fuse_writepage(k, mapping, page)
    lock_page(page)
    return EAGAIN


def fallback_migrate_page(
    k: Kernel, mapping: AddressSpace, newpage: Page, page: Page, mode: int
) -> int:
    """Migrate a page of a file system that has no migratepage of its own.

    Source:   mm/migrate.c fallback_migrate_page(), v4.3.
    Context:  both pages locked.
    Returns:  as migrate_page; -EBUSY: dirty, and not to be waited for; as writeout.
    """
    if PageDirty(page):
        if mode != MIGRATE_SYNC:
            return EBUSY
        return writeout(k, mapping, page)
    if page_private_refs(page) and not buffer.try_to_release_page(k, page):
        return EAGAIN
    return migrate_page(k, mapping, newpage, page)


def move_to_new_page(k: Kernel, newpage: Page, page: Page, page_was_mapped: bool, mode: int) -> int:
    """Move a page that is locked and unmapped.

    Source:   mm/migrate.c move_to_new_page(), v4.3.
                                               Patches: P07, P11, 0610c25daa3e, mutant:7b.
    Context:  page locked; newpage locked here, or by the caller with P07.
    Returns:  0, or an errno: newpage is as it was, but for a stale index and PG_swapbacked
              without P11.
    Bugs:     BUG: newpage's lock is taken. VM_BUG (P07): either page not locked.
    """
    if P07 in k.patches:
        VM_BUG_ON_PAGE(
            not peek(page, PG_locked) & peek(newpage, PG_locked),
            "vm-bug-move-to-new-page-unlocked",
            "!PageLocked(page) || !PageLocked(newpage)",
        )
    else:
        if not trylock_page(newpage):
            if MUT_7B in k.patches:
                unlock_page(newpage)  # as every way out does: whose lock was it?
                return EAGAIN
            BUG("bug-newpage-trylock", "trylock_page(newpage) failed")
    if P11 not in k.patches:
        take_over_identity(k, newpage, page)
    mapping = util.page_mapping(k, page)
    if mapping is not None and PageHuge(page):
        rc = hugetlb.hugetlbfs_migrate_page(k, mapping, newpage, page)
    elif mapping is not None and not mapping.has_migratepage:
        rc = fallback_migrate_page(k, mapping, newpage, page, mode)
    elif mapping is not None and mapping.fs == "ext2":
        rc = buffer_migrate_page(k, mapping, newpage, page, mode)
    elif mapping is not None and mapping.fs == "aio":
        rc = aio.aio_migratepage(k, mapping, newpage, page, mode)
    else:
        rc = migrate_page(k, mapping, newpage, page)
    if rc != MIGRATEPAGE_SUCCESS:
        if P11 not in k.patches:
            if C_0610c25daa3e in k.patches:
                newpage.mem_cgroup = None
            newpage.mapping = None
    else:
        let_go_of_old_page(k, newpage, page, page_was_mapped)
    if P07 not in k.patches:
        unlock_page(newpage)
    return rc


def let_go_of_old_page(k: Kernel, newpage: Page, page: Page, page_was_mapped: bool) -> None:
    """The old page leaves its file; what it was, an anonymous page stays until it is freed (P08).

    Source:   mm/migrate.c move_to_new_page(), v4.3.    Patches: P08, 0610c25daa3e, mutant:8b.
    Context:  both pages locked.
    """
    if C_0610c25daa3e in k.patches:
        page.mem_cgroup = None
    else:
        memcontrol.mem_cgroup_replace_page(k, page, newpage, lrucare=False)
    if P08 in k.patches:
        if MUT_8B in k.patches:
            page.mapping = None
            return
        if not PageAnon(page):
            page.mapping = None
    else:
        if page_was_mapped:
            remove_migration_ptes(k, page, newpage)
        page.mapping = None


def __unmap_and_move(k: Kernel, page: Page, newpage: Page, force: bool, mode: int) -> int:
    """Lock, unmap, move, map again.

    Source:   mm/migrate.c __unmap_and_move(), v4.3.    Patches: P07, P08, P09, mutant:7c.
    Context:  page isolated; takes its lock, and newpage's with P07.
    Returns:  0; -EAGAIN: try again; -EBUSY: under writeback.
    Bugs:     VM_BUG (P09): a mapped anonymous page without anon_vma.
    Left out: transparent huge pages.
    """
    rc = EAGAIN
    if not trylock_page(page):
        if not force or mode == MIGRATE_ASYNC:
            return rc
        lock_page(page)
    if PageWriteback(page):
        if mode != MIGRATE_SYNC:
            unlock_page(page)
            return EBUSY
        if not force:
            unlock_page(page)
            return rc
        wait_on_page_writeback(page)
    anon_vma: AnonVma | None = None
    if PageAnonNotKsm(page):
        anon_vma = rmap.page_get_anon_vma(k, page)
        if P09 not in k.patches:
            if anon_vma is None and not PageSwapCache(page):
                unlock_page(page)
                return rc
    if P07 in k.patches:
        if not trylock_page(newpage):
            if MUT_7C not in k.patches:
                _put(anon_vma)
            unlock_page(page)
            return rc
    if PageBalloon(page):
        rc = balloon_compaction.balloon_page_migrate(k, newpage, page)
        if P07 in k.patches:
            unlock_page(newpage)
        _put(anon_vma)
        unlock_page(page)
        return rc
    page_was_mapped = orphan = False
    if page.mapping is None:
        orphan = page_private_refs(page) != 0
        if orphan:
            buffer.try_to_free_buffers(k, page)
    elif page_mapped(page):
        if P09 in k.patches:
            VM_BUG_ON_PAGE(
                isinstance(page._mapping, AnonVma) and anon_vma is None,
                "vm-bug-migrate-no-anon-vma",
                "PageAnon(page) && !PageKsm(page) && !anon_vma",
            )
        rmap.try_to_unmap(k, page, TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS)
        page_was_mapped = True
    if not orphan and not page_mapped(page):
        rc = move_to_new_page(k, newpage, page, page_was_mapped, mode)
    if page_was_mapped:
        if P08 in k.patches:
            remove_migration_ptes(k, page, newpage if rc == MIGRATEPAGE_SUCCESS else page)
        else:
            if rc != MIGRATEPAGE_SUCCESS:
                remove_migration_ptes(k, page, page)
    if P07 in k.patches:
        unlock_page(newpage)
    _put(anon_vma)
    unlock_page(page)
    return rc


def _put(anon_vma: AnonVma | None) -> None:
    if anon_vma is not None:
        rmap.put_anon_vma(anon_vma)


def unmap_and_move(
    k: Kernel,
    get_new_page: NewPage,
    put_new_page: FreePage | None,
    page: Page,
    force: bool,
    mode: int,
) -> tuple[int, int]:
    """Migrate one page of a list.

    Source:   mm/migrate.c unmap_and_move(), v4.3.
                                      Patches: P06, P11, 8bdd63809160, fix:balloon-newpage.
    Context:  page isolated by the caller.
    Returns:  (rc, status): rc as __unmap_and_move, or -ENOMEM; where it is not -EAGAIN the page is
              off the list. status: the node it is on now, or rc.
    Left out: soft offlining.
    """
    newpage = get_new_page(page)
    if newpage is None:
        return ENOMEM, ENOMEM
    was_mlocked = peek(page, PG_mlocked) != 0
    balloon = PageBalloon(page)  # cannot change while it is isolated
    k.machine.note("migration-begin", page, newpage)
    rc = 0
    # With one reference it was freed under us. One that will not be split counts as migrated.
    if page_count(page) != 1 and not huge_memory.split_failed(k, page):
        rc = __unmap_and_move(k, page, newpage, force, mode)
        if P06 in k.patches:
            if rc == MIGRATEPAGE_SUCCESS:
                put_new_page = None  # it is in use now
    k.machine.note("migration-end", page, newpage, rc, was_mlocked, page.cleared_mlocked)
    if rc != EAGAIN:
        page.zone.stat[vmscan.isolated_counter(page)] -= 1
        vmscan.putback_lru_page(k, page)
    status = rc if rc else newpage.zone.node
    if P06 in k.patches:
        unused = put_new_page is not None
    else:
        unused = rc != MIGRATEPAGE_SUCCESS and put_new_page is not None
    if FIX_BALLOON_NEWPAGE not in k.patches:
        balloon = PageBalloon(newpage)  # if nobody has moved it on, or deflated, since its unlock
    if unused and put_new_page is not None:
        if P11 not in k.patches:
            if C_8bdd63809160 in k.patches:
                ClearPageSwapBacked(newpage)
        put_new_page(newpage)
    elif balloon:
        swap.put_page(k, newpage)  # the balloon has a reference of its own
    else:
        vmscan.putback_lru_page(k, newpage)
    return rc, status


def unmap_and_move_huge_page(
    k: Kernel,
    get_new_page: NewPage,
    put_new_page: FreePage | None,
    hpage: Page,
    force: bool,
    mode: int,
) -> tuple[int, int]:
    """Migrate one huge page of a list.

    Source:   mm/migrate.c unmap_and_move_huge_page(), v4.3.   Patches: P06.
    Context:  page isolated by the caller.
    Returns:  as unmap_and_move.
    Left out: sizes of huge pages that cannot be migrated, the hugetlb cgroup.
    """
    new_hpage = get_new_page(hpage)
    if new_hpage is None:
        return ENOMEM, ENOMEM
    k.machine.note("migration-begin", hpage, new_hpage)
    rc = unmap_and_move_locked_huge_page(k, hpage, new_hpage, force, mode)
    if P06 in k.patches:
        if rc == MIGRATEPAGE_SUCCESS:
            put_new_page = None
    k.machine.note("migration-end", hpage, new_hpage, rc, False, None)
    if rc != EAGAIN:
        hugetlb.putback_active_hugepage(k, hpage)
    if P06 in k.patches:
        unused = put_new_page is not None
    else:
        unused = rc != MIGRATEPAGE_SUCCESS and put_new_page is not None
    status = rc if rc else new_hpage.zone.node
    if unused and put_new_page is not None:
        put_new_page(new_hpage)
    else:
        hugetlb.putback_active_hugepage(k, new_hpage)
    return rc, status


def unmap_and_move_locked_huge_page(
    k: Kernel, hpage: Page, new_hpage: Page, force: bool, mode: int
) -> int:
    """Lock, unmap, move, map again: of a huge page.

    Source:   mm/migrate.c unmap_and_move_huge_page(), from the page lock to its unlock, v4.3.
                                               Patches: P07, P08.
    Context:  as __unmap_and_move.             Returns: 0, or -EAGAIN.
    """
    rc = EAGAIN
    if not trylock_page(hpage):
        if not force or mode != MIGRATE_SYNC:
            return rc
        lock_page(hpage)
    anon_vma = rmap.page_get_anon_vma(k, hpage) if PageAnon(hpage) else None
    if P07 in k.patches:
        if not trylock_page(new_hpage):
            _put(anon_vma)
            unlock_page(hpage)
            return rc
    page_was_mapped = page_mapped(hpage)
    if page_was_mapped:
        rmap.try_to_unmap(k, hpage, TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS)
    if not page_mapped(hpage):
        rc = move_to_new_page(k, new_hpage, hpage, page_was_mapped, mode)
    if page_was_mapped:
        if P08 in k.patches:
            remove_migration_ptes(k, hpage, new_hpage if rc == MIGRATEPAGE_SUCCESS else hpage)
        else:
            if rc != MIGRATEPAGE_SUCCESS:
                remove_migration_ptes(k, hpage, hpage)
    if P07 in k.patches:
        unlock_page(new_hpage)
    _put(anon_vma)
    unlock_page(hpage)
    return rc


def migrate_pages(
    k: Kernel,
    pages: list[Page],
    get_new_page: NewPage,
    put_new_page: FreePage | None,
    mode: int,
) -> tuple[int, dict[int, int]]:
    """Migrate a list of isolated pages, in up to ten passes.

    Source:   mm/migrate.c migrate_pages(), v4.3.
    Context:  process context.
    Args:     pages: those that could not be migrated are left in it.
    Returns:  (number not migrated or -ENOMEM, status by pfn).
    """
    succeeded = failed = 0
    retry_count = 1
    statuses: dict[int, int] = {}
    rc = 0
    for attempt in range(PASSES_MAX):
        if not retry_count:
            break
        retry_count = 0
        for page in list(pages):
            move = unmap_and_move_huge_page if PageHuge(page) else unmap_and_move
            rc, status = move(k, get_new_page, put_new_page, page, attempt > 2, mode)
            if rc == ENOMEM:
                _count(k, succeeded, failed)
                return rc, statuses
            statuses[page.pfn] = status
            if rc == EAGAIN:
                retry_count += 1
                continue
            pages.remove(page)
            if rc == MIGRATEPAGE_SUCCESS:
                succeeded += 1
            else:
                failed += 1
    _count(k, succeeded, failed)
    return failed + retry_count, statuses


def _count(k: Kernel, succeeded: int, failed: int) -> None:
    if succeeded:
        k.count_vm_event(PGMIGRATE_SUCCESS, succeeded)
    if failed:
        k.count_vm_event(PGMIGRATE_FAIL, failed)


def sys_move_pages(k: Kernel, mm: MmStruct, address: int, node: int, move_all: bool) -> int:
    """move_pages(2) for one page.

    Source:   mm/migrate.c do_pages_move(), do_move_page_to_node_array(), v4.3.
    Context:  process context; holds mmap_sem for read throughout.
    Args:     move_all: MPOL_MF_MOVE_ALL, also a page that others map.
    Returns:  the page's status: the node it is on now, -ENOENT not present, -EFAULT not mapped or
              the zero page, -EACCES shared, -EBUSY not on the LRU, -EAGAIN not migrated; or
              -ENOMEM of the call itself.
    """
    swap.lru_add_drain_all(k)
    down_read(mm.mmap_sem)
    status, pages = _isolate_for_move(k, mm, address, node, move_all)
    error = 0
    if pages:
        moved = pages[0]
        error, statuses = migrate_pages(
            k, pages, lambda page: new_page_node(k, page, node), None, MIGRATE_SYNC
        )
        status = statuses.get(moved.pfn, status)
        if error:
            putback_movable_pages(k, pages)
    up_read(mm.mmap_sem)
    return error if error < 0 else status


def new_page_node(k: Kernel, page: Page, node: int) -> Page | None:
    """new_page_t: a page of the node, as huge as the old one. Source: mm/migrate.c, v4.3."""
    if PageHuge(page):
        return hugetlb.alloc_huge_page_node(k, node)
    return page_alloc.alloc_page_node(k, node)


def _isolate_for_move(
    k: Kernel, mm: MmStruct, address: int, node: int, move_all: bool
) -> tuple[int, list[Page]]:
    """Find the page to move and take it off the LRU. Returns (status so far, pages)."""
    vma = mmap.find_vma(mm, address)
    if vma is None or address < vma.vm_start:
        return EFAULT, []
    huge_memory.split_huge_page_pmd(k, vma, address)  # FOLL_SPLIT
    page = gup.follow_page_mask(k, vma, address, FOLL_GET | FOLL_DUMP)
    if page is None:
        return ENOENT, []
    if not isinstance(page, Page):
        return page, []
    pages: list[Page] = []
    if page.zone.node == node:
        status = node
    elif not move_all and page_mapcount(page) > 1:
        status = EACCES
    elif PageHuge(page):
        status = EACCES  # what was to be said above; told where it cannot be isolated
        if hugetlb.isolate_huge_page(k, page):
            pages.append(page)
    else:
        status = vmscan.isolate_lru_page(k, page)
        if status == 0:
            pages.append(page)
            page.zone.stat[vmscan.isolated_counter(page)] += 1
    swap.put_page(k, page)
    return status, pages


def numamigrate_isolate_page(k: Kernel, page: Page) -> bool:
    """Take a huge page off the LRU for its migration, if nobody has pinned it.

    Source:   mm/migrate.c numamigrate_isolate_page(), v4.3.
    Context:  page locked; drops the caller's reference where it succeeds.
    """
    if vmscan.isolate_lru_page(k, page):
        return False
    if page_count(page) != 3:  # its mapping's, the caller's, the isolation's
        vmscan.putback_lru_page(k, page)
        return False
    page.zone.stat[vmscan.isolated_counter(page)] += 1
    swap.put_page(k, page)
    return True


def migrate_misplaced_transhuge_page(
    k: Kernel,
    vma: VmAreaStruct,
    pte: Pte,
    entry: PteVal,
    address: int,
    page: Page,
    node: int,
) -> bool:
    """Move a huge page that one process maps to another node, without migration entries.

    Source:   mm/migrate.c migrate_misplaced_transhuge_page(), v4.3.
                                               Patches: P03, P04, fix:thp-undo-read-only.
    Context:  mmap_sem and the anon_vma's rwsem held for read, page locked, with a reference of the
              caller's; all but the semaphores are let go. Takes the ptl.
    Args:     entry: what the pmd is, with its hint.
    Returns:  was it moved.
    Left out: rate limits. A page is pinned at its number, without the ptl, at any time.
    """
    new_page = huge_memory.alloc_hugepage(k, node)
    if new_page is None or not numamigrate_isolate_page(k, page):
        if new_page is not None:
            swap.put_page(k, new_page)
        k.count_vm_event(PGMIGRATE_FAIL, page.nr_pages)
        spin_lock(pte.lock)
        if pte_same(pte.value, entry):
            set_pte_at(pte, entry)  # without the hint, and to be made writable by a fault
        spin_unlock(pte.lock)
        unlock_page(page)
        swap.put_page(k, page)
        return False
    counter = vmscan.isolated_counter(page)
    was_mlocked = peek(page, PG_mlocked) != 0
    k.machine.note("thp-migration-begin", page, new_page)
    set_page_locked(new_page)
    SetPageSwapBacked(new_page)
    new_page.mapping = page.mapping
    new_page.index = page.index
    migrate_page_copy(k, new_page, page)
    spin_lock(pte.lock)
    moved = pte_same(pte.value, entry) and page_count(page) == 2
    if moved:
        writable = bool(vma.vm_flags & VM_WRITE)
        rmap.page_add_anon_rmap(new_page, vma, address)
        ptep_get_and_clear(pte)
        new = pte_mkdirty(PteVal(PRESENT, new_page, write=writable, young=True))
        if FIX_THP_UNDO_READ_ONLY in k.patches:
            set_pte_at(pte, pte_with(new, write=False))
        else:
            set_pte_at(pte, new)
        if page_count(page) != 2:  # pinned since, by its number
            set_pte_at(pte, entry)  # and who wrote to the new page meanwhile?
            k.machine.note("page-abandoned", new_page, page)
            rmap.page_remove_rmap(k, new_page)  # takes PG_mlocked along, if it is there already
            moved = False
    if not moved:
        undo_misplaced_copy(k, pte, page, new_page)
        page.zone.stat[counter] -= 1
        k.machine.note(
            "thp-migration-end", page, new_page, EAGAIN, was_mlocked, page.cleared_mlocked
        )
        return False
    k.machine.note("page-moved", page, new_page)
    if FIX_THP_UNDO_READ_ONLY in k.patches:
        set_pte_at(pte, new)
    if P03 in k.patches:
        mlock_migrate_page(new_page, page)
    if P04 in k.patches:
        new_page.mem_cgroup = page.mem_cgroup
        page.mem_cgroup = None
    else:
        memcontrol.mem_cgroup_replace_page(k, page, new_page, lrucare=False)
    rmap.page_remove_rmap(k, page)
    spin_unlock(pte.lock)
    get_page(new_page)
    vmscan.putback_lru_page(k, new_page)
    unlock_page(new_page)
    unlock_page(page)
    k.machine.note("thp-migration-end", page, new_page, 0, was_mlocked, page.cleared_mlocked)
    page.zone.stat[counter] -= 1
    k.count_vm_event(PGMIGRATE_SUCCESS, page.nr_pages)
    swap.put_page(k, page)
    swap.put_page(k, page)
    return True


def undo_misplaced_copy(k: Kernel, pte: Pte, page: Page, new_page: Page) -> None:
    """Give back to the old page what the copy took from it; the new one is freed.

    Source:   mm/migrate.c migrate_misplaced_transhuge_page(), from fail_putback on, v4.3.
                                               Patches: P03.
    Context:  both pages locked, ptl held; all are let go.
    """
    spin_unlock(pte.lock)
    if TestClearPageActive(new_page):
        SetPageActive(page)
    if TestClearPageUnevictable(new_page):
        SetPageUnevictable(page)
    if P03 not in k.patches:
        mlock_migrate_page(page, new_page)
    unlock_page(new_page)
    swap.put_page(k, new_page)
    get_page(page)
    vmscan.putback_lru_page(k, page)
    unlock_page(page)
    swap.put_page(k, page)
