"""mm/swapfile.c: swap slots and who refers to them."""

from __future__ import annotations

from kstate.flags import EEXIST, ENOENT, ENOMEM, PG_locked
from kstate.machine import (
    look,
    spin_lock,
    spin_unlock,
)
from kstate.mm import filemap, swap, swap_state
from kstate.mm.debug import VM_BUG_ON, VM_BUG_ON_PAGE
from kstate.pageflags import (
    PageSwapCache,
    PageWriteback,
    SetPageDirty,
    page_mapcount,
    page_mapped,
    peek,
    trylock_page,
    unlock_page,
)
from kstate.structs import (
    SWAP_HAS_CACHE,
    SWAP_MAP_MAX,
    SWAP_MAP_SHMEM,
    Kernel,
    Page,
    StableNode,
    set_swap_map,
    swap_map,
)


def get_swap_page(k: Kernel) -> int:
    """Take a free slot for the swap cache.

    Source:   mm/swapfile.c get_swap_page(), scan_swap_map(), v4.3.
    Context:  takes swap_lock.
    Returns:  the slot, from 1; 0 where swap is full, or by an injected fault `get_swap_page`.
    Left out: clusters, several devices.
    """
    if k.machine.fault("get_swap_page"):
        return 0
    spin_lock(k.swap.lock)
    for slot in range(1, k.swap.slots_count + 1):
        if slot not in k.swap._swap_map:
            set_swap_map(k.swap, slot, SWAP_HAS_CACHE)
            spin_unlock(k.swap.lock)
            return slot
    spin_unlock(k.swap.lock)
    return 0


def vm_swap_full(k: Kernel) -> bool:
    """More than half of swap is in use. No step. Source: include/linux/swap.h, v4.3."""
    look(k.swap, "swap_map")
    return (k.swap.slots_count - len(k.swap._swap_map)) * 2 < k.swap.slots_count


def __swap_duplicate(k: Kernel, slot: int, usage: int) -> int:
    """One reference more to a slot.

    Source:   mm/swapfile.c __swap_duplicate(), v4.3.
    Context:  takes swap_lock.
    Args:     usage: 1, SWAP_MAP_SHMEM or SWAP_HAS_CACHE.
    Returns:  0; -ENOENT: the slot is free; -EEXIST: it is in the swap cache already; -ENOMEM: its
              count is full, or an injected fault `swap_duplicate` (no memory for a continuation).
    """
    if usage == 1 and k.machine.fault("swap_duplicate"):
        return ENOMEM
    spin_lock(k.swap.lock)
    value = swap_map(k.swap, slot)
    has_cache = value & SWAP_HAS_CACHE
    count = value & ~SWAP_HAS_CACHE
    error = 0
    if usage == SWAP_HAS_CACHE:
        if has_cache:
            error = EEXIST
        elif count == 0:
            error = ENOENT
        else:
            has_cache = SWAP_HAS_CACHE
    elif not value:
        error = ENOENT
    elif usage == SWAP_MAP_SHMEM:
        count = SWAP_MAP_SHMEM
    elif count < SWAP_MAP_MAX:
        count += 1
    else:
        error = ENOMEM
    if not error:
        set_swap_map(k.swap, slot, count | has_cache)
    spin_unlock(k.swap.lock)
    return error


def swap_duplicate(k: Kernel, slot: int) -> int:
    """A pte more refers to a slot. Returns: 0 or -ENOMEM. Source: mm/swapfile.c, v4.3."""
    return __swap_duplicate(k, slot, 1)


def swapcache_prepare(k: Kernel, slot: int) -> int:
    """Reserve a slot for the swap cache. Source: mm/swapfile.c swapcache_prepare(), v4.3."""
    return __swap_duplicate(k, slot, SWAP_HAS_CACHE)


def swap_shmem_alloc(k: Kernel, slot: int) -> None:
    """A file's page tree refers to the slot. Source: mm/swapfile.c swap_shmem_alloc(), v4.3."""
    __swap_duplicate(k, slot, SWAP_MAP_SHMEM)


def _swap_entry_free(k: Kernel, slot: int, usage: int) -> int:
    """One reference less; swap_lock held. Returns what is left of the slot's value."""
    value = swap_map(k.swap, slot)
    has_cache = value & SWAP_HAS_CACHE
    count = value & ~SWAP_HAS_CACHE
    if usage == SWAP_HAS_CACHE:
        VM_BUG_ON(not has_cache, "vm-bug-swap-entry-free", "!has_cache")
        has_cache = 0
    elif count == SWAP_MAP_SHMEM:
        count = 0
    else:
        count -= 1
    set_swap_map(k.swap, slot, count | has_cache)
    return count | has_cache


def swap_free(k: Kernel, slot: int) -> None:
    """Drop a reference to a slot.

    Source:   mm/swapfile.c swap_free(), swap_entry_free(), v4.3.
    Context:  takes swap_lock. A free slot is left alone (the kernel complains of it).
    """
    spin_lock(k.swap.lock)
    look(k.swap, "swap_map")
    if slot in k.swap._swap_map:
        _swap_entry_free(k, slot, 1)
    spin_unlock(k.swap.lock)


def swapcache_free(k: Kernel, slot: int) -> None:
    """The swap cache lets go of a slot. Source: mm/swapfile.c swapcache_free(), v4.3."""
    spin_lock(k.swap.lock)
    _swap_entry_free(k, slot, SWAP_HAS_CACHE)
    spin_unlock(k.swap.lock)


def page_swapcount(k: Kernel, page: Page) -> int:
    """How many refer to the page's slot, the cache apart. Source: mm/swapfile.c, v4.3."""
    slot = page.private
    spin_lock(k.swap.lock)
    count = swap_map(k.swap, slot) & ~SWAP_HAS_CACHE
    spin_unlock(k.swap.lock)
    return count


def reuse_swap_page(k: Kernel, page: Page) -> bool:
    """Is the pte in hand the only user of this anonymous page? Then its swap slot is let go.

    Source:   mm/swapfile.c reuse_swap_page(), v4.3.
    Context:  page locked.                     Bugs: VM_BUG: not locked.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-reuse-swap-page", "!PageLocked(page)")
    look(page, "mapping")
    if isinstance(page._mapping, StableNode):
        return False
    count = page_mapcount(page)
    if count <= 1 and PageSwapCache(page):
        count += page_swapcount(k, page)
        if count == 1 and not PageWriteback(page):
            swap_state.delete_from_swap_cache(k, page)
            SetPageDirty(page)
    return count <= 1


def try_to_free_swap(k: Kernel, page: Page) -> bool:
    """Take a page out of the swap cache if nobody refers to its slot.

    Source:   mm/swapfile.c try_to_free_swap(), v4.3.
    Context:  page locked.                     Bugs: VM_BUG: not locked.
    """
    VM_BUG_ON_PAGE(not peek(page, PG_locked), "vm-bug-try-to-free-swap", "!PageLocked(page)")
    if not PageSwapCache(page) or PageWriteback(page) or page_swapcount(k, page):
        return False
    swap_state.delete_from_swap_cache(k, page)
    SetPageDirty(page)
    return True


def free_swap_and_cache(k: Kernel, slot: int) -> None:
    """Drop a reference to a slot; where only the cache is left, drop that page too if it is idle.

    Source:   mm/swapfile.c free_swap_and_cache(), v4.3.
    Context:  takes swap_lock; a page whose lock is taken stays in the cache.
    """
    page: Page | None = None
    spin_lock(k.swap.lock)
    look(k.swap, "swap_map")
    if slot in k.swap._swap_map and _swap_entry_free(k, slot, 1) == SWAP_HAS_CACHE:
        page = filemap.find_get_page(k, k.swap.space, slot)
        if page is not None and not trylock_page(page):
            swap.put_page(k, page)
            page = None
    spin_unlock(k.swap.lock)
    if page is None:
        return
    if (
        PageSwapCache(page)
        and not PageWriteback(page)
        and (not page_mapped(page) or vm_swap_full(k))
    ):
        swap_state.delete_from_swap_cache(k, page)
        SetPageDirty(page)
    unlock_page(page)
    swap.put_page(k, page)
