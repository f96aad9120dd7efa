"""mm/filemap.c: the page cache, and faults on files that live on a disk."""

from __future__ import annotations

from kstate.flags import (
    EEXIST,
    ENOMEM,
    FAULT_FLAG_ALLOW_RETRY,
    NR_FILE_PAGES,
    NR_SHMEM,
    PAGEVEC_SIZE,
    VM_FAULT_LOCKED,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    PG_locked,
)
from kstate.machine import (
    look,
    rcu_read_lock,
    rcu_read_unlock,
    retry_when_changed,
    spin_lock_irq,
    spin_unlock_irq,
    touch,
    up_read,
)
from kstate.mm import memcontrol, memory, page_alloc, page_writeback, swap
from kstate.mm.debug import BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageActive,
    PageDirty,
    PageHuge,
    PageReclaim,
    PageSwapBacked,
    PageUptodate,
    SetPageActive,
    SetPageReferenced,
    SetPageUptodate,
    clear_page_locked,
    get_page,
    get_page_unless_zero,
    lock_page,
    peek,
    put_page_testzero,
    set_page_locked,
    trylock_page,
    unlock_page,
    wait_on_page_locked,
)
from kstate.patches import FIX_AIO_RING_FAULT
from kstate.structs import (
    NONE,
    SHADOW,
    AddressSpace,
    Kernel,
    MemCgroup,
    MmStruct,
    Page,
    VmAreaStruct,
    radix_tree_indices,
    radix_tree_lookup,
    radix_tree_store,
)


def find_get_page(k: Kernel, mapping: AddressSpace, index: int) -> Page | None:
    """The cached page at `index`, with a reference. No lock: the slot is looked at again after.

    Source:   mm/filemap.c find_get_page(), pagecache_get_page(), v4.3.
    Context:  RCU. A count frozen by somebody who is mid-way is waited for, not spun on.
    """
    rcu_read_lock(k.machine)
    page = _lookup(k, mapping, index)
    rcu_read_unlock(k.machine)
    return page if isinstance(page, Page) else None


def find_get_entry(k: Kernel, mapping: AddressSpace, index: int) -> Page | int | None:
    """What is cached at `index`, a page with a reference or a swap slot. As find_get_page.

    Source:   mm/filemap.c find_get_entry(), v4.3.            Context: RCU.
    """
    rcu_read_lock(k.machine)
    entry = _lookup(k, mapping, index)
    rcu_read_unlock(k.machine)
    return entry


def find_get_entries(
    k: Kernel, mapping: AddressSpace, start: int, limit: int = PAGEVEC_SIZE, tag: str = ""
) -> list[tuple[int, Page | int]]:
    """What is cached from `start` on, with where: pages with a reference, swap slots.

    Source:   mm/filemap.c find_get_entries(), find_get_pages_tag(), v4.3. Context: RCU.
    Args:     limit: how many at most. tag: only pages that have it, or had it when they were looked
              for: one that has been reclaimed since is passed over.
    """
    found: list[tuple[int, Page | int]] = []
    rcu_read_lock(k.machine)
    for index in radix_tree_indices(mapping, start, tag)[: min(limit, PAGEVEC_SIZE)]:
        entry = _lookup(k, mapping, index)
        if isinstance(entry, Page) or (entry is not None and not tag):
            found.append((index, entry))
    rcu_read_unlock(k.machine)
    return found


def _lookup(k: Kernel, mapping: AddressSpace, index: int) -> Page | int | None:
    """The page in a slot, with a reference: look, take the reference, look again."""
    while True:
        page = radix_tree_lookup(mapping, index)
        if not isinstance(page, Page):
            return page
        if not get_page_unless_zero(page):
            look(page)
            look(mapping)
            if mapping._page_tree.get(index) is page and page._refcount == 0:
                retry_when_changed((page, "_refcount"), (mapping, "_tree_version"))
            continue
        if radix_tree_lookup(mapping, index) is page:
            return page
        swap.put_page(k, page)


def find_lock_entry(k: Kernel, mapping: AddressSpace, index: int) -> Page | int | None:
    """What is cached at `index`: a page with a reference, locked, or a swap slot.

    Source:   mm/filemap.c find_lock_entry(), v4.3.
    Context:  sleeps.                          Bugs: VM_BUG: its index changed.
    """
    while True:
        page = find_get_entry(k, mapping, index)
        if not isinstance(page, Page):
            return page
        lock_page(page)
        if page.mapping is mapping:
            VM_BUG_ON_PAGE(page._index != index, "vm-bug-find-lock-entry", "page->index != offset")
            return page
        unlock_page(page)
        swap.put_page(k, page)


def pagecache_get_page(k: Kernel, mapping: AddressSpace, index: int) -> tuple[int, Page | None]:
    """The page at `index`, made where there is none; accessed, locked, with a reference.

    Source:   mm/filemap.c pagecache_get_page(), v4.3, with FGP_LOCK, FGP_ACCESSED and FGP_CREAT:
              find_or_create_page(), grab_cache_page_write_begin(), which need not wait for stable
              pages on a RAM disk.
    Context:  sleeps.
    Returns:  (0 or -ENOMEM, page).
    """
    while True:
        page = find_lock_entry(k, mapping, index)
        if isinstance(page, Page):
            swap.mark_page_accessed(k, page)
            return 0, page
        page = page_alloc.alloc_page(k)
        if page is None:
            return ENOMEM, None
        SetPageReferenced(page)
        error = add_to_page_cache_lru(k, mapping, page, index)
        if not error:
            return 0, page
        swap.put_page(k, page)
        if error != EEXIST:
            return error, None


def add_to_page_cache(k: Kernel, mapping: AddressSpace, page: Page, index: int) -> int:
    """Insert a new page, locked. Source: include/linux/pagemap.h add_to_page_cache(), v4.3.

    Context and returns: as __add_to_page_cache_locked."""
    set_page_locked(page)
    error, _ = __add_to_page_cache_locked(k, mapping, page, index)
    if error:
        clear_page_locked(page)
    return error


def add_to_page_cache_lru(k: Kernel, mapping: AddressSpace, page: Page, index: int) -> int:
    """Insert a new page, locked, and put it on an LRU list: the active one if it was reclaimed too
    early, see MODEL.md.

    Source:   mm/filemap.c add_to_page_cache_lru(); mm/workingset.c workingset_refault(), v4.3.
    Context and returns: as __add_to_page_cache_locked."""
    set_page_locked(page)
    error, shadow = __add_to_page_cache_locked(k, mapping, page, index)
    if error:
        clear_page_locked(page)
        return error
    if shadow:
        SetPageActive(page)
    else:
        ClearPageActive(page)
    swap.lru_cache_add(k, page)
    return 0


def __add_to_page_cache_locked(
    k: Kernel, mapping: AddressSpace, page: Page, index: int
) -> tuple[int, bool]:
    """Insert a new page, and charge it to whoever asked for it.

    Source:   mm/filemap.c __add_to_page_cache_locked(), page_cache_tree_insert(), v4.3.
    Context:  page locked; takes tree_lock; the cache holds a reference of its own.
    Returns:  (0, was there a shadow of one that was reclaimed); (-EEXIST, False): somebody was
              faster, the page is as it was; (-ENOMEM, False): it was not charged.
    """
    memcg = None
    if not PageHuge(page):
        error, memcg = memcontrol.mem_cgroup_try_charge(k, page, memcontrol.current_mm(k))
        if error:
            return error, False
    get_page(page)
    page.mapping = mapping
    page.index = index
    spin_lock_irq(mapping.tree_lock)
    entry = radix_tree_lookup(mapping, index)
    if isinstance(entry, Page):
        page.mapping = None
        spin_unlock_irq(mapping.tree_lock)
        memcontrol.mem_cgroup_cancel_charge(memcg)
        put_page_testzero(page)
        return EEXIST, False
    radix_tree_store(mapping, index, page)
    if not PageHuge(page):
        page.zone.stat[NR_FILE_PAGES] += 1
    spin_unlock_irq(mapping.tree_lock)
    if not PageHuge(page):
        memcontrol.mem_cgroup_commit_charge(page, memcg)
    return 0, entry == SHADOW


def __delete_from_page_cache(
    k: Kernel,
    mapping: AddressSpace,
    page: Page,
    *,
    reclaimed: bool = False,
    memcg: MemCgroup | None = None,
) -> None:
    """Take a page out of its file.

    Source:   mm/filemap.c __delete_from_page_cache(), v4.3.
    Context:  page locked, tree_lock held, between mem_cgroup_begin_page_stat and its end.
    Args:     reclaimed: leave a shadow, so that a page that soon comes back is known.
              memcg: what mem_cgroup_begin_page_stat returned.
    Bugs:     BUG: still mapped. Reports WARN_ONCE: still dirty.
    """
    index = page.index
    shadow = SHADOW if reclaimed and not PageSwapBacked(page) else None
    radix_tree_store(mapping, index, shadow)
    page.mapping = None
    page.zone.stat[NR_FILE_PAGES] -= 1
    if PageSwapBacked(page):
        page.zone.stat[NR_SHMEM] -= 1
    look(page, "mapcount")
    BUG_ON(page._mapcount > 0, "bug-delete-mapped-page", "page_mapped(page)")
    if PageDirty(page):
        k.machine.report(
            "warn-delete-dirty-page",
            "WARNING: PageDirty(page)",
            "mm/filemap.py:__delete_from_page_cache",
            page,
        )
        if mapping.accounts_dirty:
            page_writeback.account_page_cleaned(page, memcg)


def delete_from_page_cache(k: Kernel, page: Page) -> None:
    """Take a page out of its file, and drop the cache's reference.

    Source:   mm/filemap.c delete_from_page_cache(), v4.3.
    Context:  page locked, the caller has a reference.         Bugs: BUG: not locked.
    """
    mapping = page.mapping
    BUG_ON(not peek(page, PG_locked), "bug-delete-from-page-cache-unlocked", "!PageLocked(page)")
    assert isinstance(mapping, AddressSpace)
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    spin_lock_irq(mapping.tree_lock)
    __delete_from_page_cache(k, mapping, page, memcg=memcg)
    spin_unlock_irq(mapping.tree_lock)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)
    swap.put_page(k, page)


def replace_page_cache_page(k: Kernel, old: Page, new: Page) -> None:
    """Let another page take the place of one in a file, with its charge.

    Source:   mm/filemap.c replace_page_cache_page(), v4.3.
    Context:  both pages locked; takes tree_lock. `old` loses the cache's reference, and may be on
              an LRU list.
    Bugs:     VM_BUG: not locked; `new` has a mapping.
    """
    locked = peek(old, PG_locked) & peek(new, PG_locked)
    VM_BUG_ON_PAGE(not locked, "vm-bug-replace-cache-unlocked", "!PageLocked(page)")
    look(new, "mapping")
    VM_BUG_ON_PAGE(new._mapping is not None, "vm-bug-replace-cache-mapping", "new->mapping")
    mapping = old.mapping
    assert isinstance(mapping, AddressSpace)
    index = old.index
    get_page(new)
    new.mapping = mapping
    new.index = index
    memcg = memcontrol.mem_cgroup_begin_page_stat(old)
    spin_lock_irq(mapping.tree_lock)
    __delete_from_page_cache(k, mapping, old, memcg=memcg)
    radix_tree_store(mapping, index, new)
    new.zone.stat[NR_FILE_PAGES] += 1
    if PageSwapBacked(new):
        new.zone.stat[NR_SHMEM] += 1
    spin_unlock_irq(mapping.tree_lock)
    memcontrol.mem_cgroup_end_page_stat(old, memcg)
    memcontrol.mem_cgroup_replace_page(k, old, new)
    swap.put_page(k, old)


def do_sync_mmap_readahead(k: Kernel, mapping: AddressSpace, wanted: int) -> bool:
    """Read the file around a missing page; files here are shorter than the window.

    Source:   mm/filemap.c do_sync_mmap_readahead(), page_cache_read(), v4.3.
    Context:  mmap_sem held for read.          Returns: False where there was no memory
              for the page that is wanted; the others are read as far as there is any.
    Bugs:     NULL pointer: the file has no readpage, as its pages were all there from the start.
    """
    window = range(mapping.i_size) if mapping.accounts_dirty else ()  # ramfs has no disk to read
    for index in dict.fromkeys((*window, wanted)):
        if isinstance(radix_tree_lookup(mapping, index), Page):
            continue
        page = page_alloc.alloc_page(k)
        if page is None:
            if index == wanted:
                return False
            continue
        error = add_to_page_cache_lru(k, mapping, page, index)
        if error == ENOMEM and index == wanted:
            swap.put_page(k, page)
            return False
        if not error:
            BUG_ON(mapping.fs == "aio", "bug-no-readpage", "mapping->a_ops->readpage == NULL")
            touch(page, "content")
            page._token = mapping.backing.get(index, 0)  # the read: a RAM disk answers at once
            SetPageUptodate(page)
            unlock_page(page)
        swap.put_page(k, page)
    return True


def lock_page_or_retry(page: Page, mm: MmStruct, flags: int) -> bool:
    """Lock a page for a fault. Where that must wait and the fault may be retried, mmap_sem is
    dropped, the wait done, and False returned.

    Source:   mm/filemap.c lock_page_or_retry(), __lock_page_or_retry(), v4.3.
    """
    if trylock_page(page):
        return True
    if flags & FAULT_FLAG_ALLOW_RETRY:
        up_read(mm.mmap_sem)
        wait_on_page_locked(page)
        return False
    lock_page(page)
    return True


def filemap_fault(k: Kernel, vma: VmAreaStruct, pgoff: int, flags: int) -> tuple[int, Page | None]:
    """Find the page for a fault; it comes back locked.

    Source:   mm/filemap.c filemap_fault(), v4.3.
    Context:  mmap_sem held for read, dropped for VM_FAULT_RETRY.
    Returns:  (VM_FAULT_* bits, page).         Patches: fix:aio-ring-fault.
    Left out: asynchronous readahead, read errors.
    """
    mapping = vma.vm_file
    assert mapping is not None
    if pgoff >= mapping.i_size:
        return VM_FAULT_SIGBUS, None
    while True:
        page = find_get_page(k, mapping, pgoff)
        if page is None:
            if FIX_AIO_RING_FAULT in k.patches:
                if mapping.fs == "aio":
                    return VM_FAULT_SIGBUS, None  # truncated meanwhile: its pages are never read
            if not do_sync_mmap_readahead(k, mapping, pgoff):
                return VM_FAULT_OOM, None
            continue
        if not lock_page_or_retry(page, vma.vm_mm, flags):
            swap.put_page(k, page)
            return VM_FAULT_RETRY, None
        if page.mapping is not mapping:
            unlock_page(page)
            swap.put_page(k, page)
            continue
        VM_BUG_ON_PAGE(page._index != pgoff, "vm-bug-filemap-fault", "page->index != offset")
        if pgoff >= mapping.i_size:  # truncated meanwhile
            unlock_page(page)
            swap.put_page(k, page)
            return VM_FAULT_SIGBUS, None
        return VM_FAULT_LOCKED, page


def filemap_map_pages(k: Kernel, vma: VmAreaStruct, start: int, pgoff: int, max_pgoff: int) -> None:
    """Map what is cached around a fault, without waiting for anything.

    Source:   mm/filemap.c filemap_map_pages(), v4.3.
    Context:  ptl held. Args: start: page number of the first; pgoff, max_pgoff: offsets, inclusive.
    Left out: hwpoison pages.
    """
    mapping = vma.vm_file
    assert mapping is not None
    rcu_read_lock(k.machine)
    for offset in range(pgoff, max_pgoff + 1):
        page = _lookup(k, mapping, offset)
        if not isinstance(page, Page):
            continue
        # PG_reclaim is PG_readahead by another name: such a page is left to a fault of its own.
        if not PageUptodate(page) or PageReclaim(page) or not trylock_page(page):
            swap.put_page(k, page)
            continue
        pte = memory.pte_offset(vma.vm_mm, start + offset - pgoff)
        if (
            page.mapping is mapping
            and PageUptodate(page)
            and offset < mapping.i_size
            and pte.value.kind == NONE
        ):
            address = start + offset - pgoff
            memory.do_set_pte(k, vma, page, pte, address, write=False, anon=False)
            unlock_page(page)
        else:
            unlock_page(page)
            swap.put_page(k, page)
    rcu_read_unlock(k.machine)


def filemap_page_mkwrite(k: Kernel, vma: VmAreaStruct, page: Page) -> int:
    """A shared mapping of a disk file is about to be written through.

    Source:   mm/filemap.c filemap_page_mkwrite(), v4.3.
    Context:  page not locked; comes back locked with VM_FAULT_LOCKED.
    Returns:  VM_FAULT_NOPAGE where the page has left the file meanwhile.
    """
    lock_page(page)
    if page.mapping is not vma.vm_file:
        unlock_page(page)
        return VM_FAULT_NOPAGE
    page_writeback.set_page_dirty(k, page)
    return VM_FAULT_LOCKED
