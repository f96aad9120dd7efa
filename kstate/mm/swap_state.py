"""mm/swap_state.c: the swap cache."""

from __future__ import annotations

from kstate.flags import (
    EEXIST,
    NR_FILE_PAGES,
    PG_locked,
    PG_swapbacked,
    PG_swapcache,
    PG_uptodate,
    PG_writeback,
)
from kstate.machine import look, retry_when_changed, spin_lock_irq, spin_unlock_irq
from kstate.mm import filemap, huge_memory, page_alloc, page_io, swap, swapfile
from kstate.mm.debug import VM_BUG_ON_PAGE
from kstate.pageflags import (
    ClearPageSwapCache,
    PageSwapCache,
    SetPageDirty,
    SetPageSwapBacked,
    SetPageSwapCache,
    get_page,
    page_mapped,
    peek,
    set_page_locked,
    trylock_page,
    unlock_page,
)
from kstate.structs import SWAP_HAS_CACHE, Kernel, Page, radix_tree_store


def add_to_swap_cache(k: Kernel, page: Page, slot: int) -> None:
    """Insert a page at its slot; the cache holds a reference.

    Source:   mm/swap_state.c __add_to_swap_cache(), v4.3.
    Context:  page locked; takes the swap space's tree_lock.
    Bugs:     VM_BUG: not locked, in the swap cache already, not swap-backed.
    Left out: failure to allocate a tree node.
    """
    VM_BUG_ON_PAGE(
        not peek(page, PG_locked), "vm-bug-add-to-swap-cache-locked", "!PageLocked(page)"
    )
    VM_BUG_ON_PAGE(
        peek(page, PG_swapcache) != 0, "vm-bug-add-to-swap-cache-twice", "PageSwapCache(page)"
    )
    VM_BUG_ON_PAGE(
        not peek(page, PG_swapbacked), "vm-bug-add-to-swap-cache-backed", "!PageSwapBacked(page)"
    )
    get_page(page)
    SetPageSwapCache(page)
    page.private = slot
    space = k.swap.space
    spin_lock_irq(space.tree_lock)
    VM_BUG_ON_PAGE(slot in space._page_tree, "vm-bug-add-to-swap-cache-exists", "error == -EEXIST")
    radix_tree_store(space, slot, page)
    page.zone.stat[NR_FILE_PAGES] += 1
    spin_unlock_irq(space.tree_lock)


def __delete_from_swap_cache(k: Kernel, page: Page) -> None:
    """Take a page out of the swap cache.

    Source:   mm/swap_state.c __delete_from_swap_cache(), v4.3.
    Context:  page locked, the swap space's tree_lock held.
    Bugs:     VM_BUG: not locked, not in the swap cache, under writeback.
    """
    VM_BUG_ON_PAGE(
        not peek(page, PG_locked), "vm-bug-delete-from-swap-cache-locked", "!PageLocked(page)"
    )
    VM_BUG_ON_PAGE(
        not peek(page, PG_swapcache), "vm-bug-delete-from-swap-cache", "!PageSwapCache(page)"
    )
    VM_BUG_ON_PAGE(
        peek(page, PG_writeback) != 0,
        "vm-bug-delete-from-swap-cache-writeback",
        "PageWriteback(page)",
    )
    radix_tree_store(k.swap.space, page.private, None)
    page.private = 0
    ClearPageSwapCache(page)
    page.zone.stat[NR_FILE_PAGES] -= 1


def delete_from_swap_cache(k: Kernel, page: Page) -> None:
    """Take a page out of the swap cache and drop the cache's reference and its slot's.

    Source:   mm/swap_state.c delete_from_swap_cache(), v4.3.
    Context:  page locked, the caller has a reference.
    """
    slot = page.private
    space = k.swap.space
    spin_lock_irq(space.tree_lock)
    __delete_from_swap_cache(k, page)
    spin_unlock_irq(space.tree_lock)
    swapfile.swapcache_free(k, slot)
    swap.put_page(k, page)


def add_to_swap(k: Kernel, page: Page) -> bool:
    """Give an anonymous page a slot, and mark it dirty: it has to be written there.

    Source:   mm/swap_state.c add_to_swap(), v4.3.
    Context:  page locked.                     Returns: False where swap is full,
              or a huge page is not split.
    Bugs:     VM_BUG: not locked, not up to date.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-add-to-swap-locked", "!PageLocked(page)")
    VM_BUG_ON_PAGE(
        not peek(page, PG_uptodate), "vm-bug-add-to-swap-uptodate", "!PageUptodate(page)"
    )
    slot = swapfile.get_swap_page(k)
    if not slot:
        return False
    if huge_memory.split_failed(k, page):
        swapfile.swapcache_free(k, slot)
        return False
    add_to_swap_cache(k, page, slot)
    SetPageDirty(page)
    return True


def free_swap_cache(k: Kernel, page: Page) -> None:
    """Let go of the slot of a page that nobody maps any more, if its lock is free.

    Source:   mm/swap_state.c free_swap_cache(), v4.3.
    Context:  the caller has a reference.
    """
    if PageSwapCache(page) and not page_mapped(page) and trylock_page(page):
        swapfile.try_to_free_swap(k, page)
        unlock_page(page)


def lookup_swap_cache(k: Kernel, slot: int) -> Page | None:
    """The cached page of a slot, with a reference. Source: mm/swap_state.c, v4.3."""
    return filemap.find_get_page(k, k.swap.space, slot)


def read_swap_cache_async(k: Kernel, slot: int, limit: int = -1) -> Page | None:
    """The page of a slot, read in if it is not cached; with a reference.

    Source:   mm/swap_state.c read_swap_cache_async(), __read_swap_cache_async(), v4.3.
    Context:  sleeps.
    Args:     limit: the highest node a new page may be on, or -1.
    Returns:  None: no memory, or the slot is free.
    Left out: readahead of the slots around it.
    """
    new: Page | None = None
    while True:
        page = filemap.find_get_page(k, k.swap.space, slot)
        if page is not None:
            break
        if new is None:
            new = page_alloc.alloc_page_upto(k, limit)
            if new is None:
                break
        error = swapfile.swapcache_prepare(k, slot)
        if not error:
            set_page_locked(new)
            SetPageSwapBacked(new)
            add_to_swap_cache(k, new, slot)
            swap.lru_cache_add_inactive(k, new)
            page_io.swap_readpage(k, new)
            return new
        if error != EEXIST:
            break
        space = k.swap.space
        look(k.swap)
        look(space)
        if k.swap._swap_map.get(slot, 0) & SWAP_HAS_CACHE and slot not in space._page_tree:
            # Its owner is about to insert it, or has just taken it out.
            retry_when_changed((space, "_tree_version"), (k.swap, "_map_version"))
    if new is not None:
        swap.put_page(k, new)
    return page


def swapin_readahead(k: Kernel, slot: int, limit: int = -1) -> Page | None:
    """Source: mm/swap_state.c swapin_readahead(), v4.3. Left out: the readahead."""
    return read_swap_cache_async(k, slot, limit)
