"""mm/truncate.c: taking pages out of a file for good."""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import EIO
from kstate.fs import buffer
from kstate.machine import spin_lock_irq, spin_unlock_irq
from kstate.mm import (
    filemap,
    memcontrol,
    memory,
    mlock,
    page_writeback,
    swap,
    util,
    vmscan,
)
from kstate.mm.debug import BUG_ON
from kstate.pageflags import (
    PageDirty,
    PageWriteback,
    lock_page,
    page_mapped,
    page_private_refs,
    trylock_page,
    unlock_page,
    wait_on_page_writeback,
)
from kstate.patches import C_e6c509f85455
from kstate.structs import (
    SHADOW,
    AddressSpace,
    Kernel,
    Page,
    radix_tree_lookup,
    radix_tree_store,
)


def truncate_setsize(k: Kernel, mapping: AddressSpace, newsize: int) -> None:
    """Change a file's size, and drop what is beyond it.

    Source:   mm/truncate.c truncate_setsize(), v4.3.
    Context:  i_mutex held.                    Args: newsize: pages.
    """
    mapping.i_size = newsize
    truncate_pagecache(k, mapping, newsize)


def truncate_pagecache(k: Kernel, mapping: AddressSpace, newsize: int) -> None:
    """Unmap, drop, unmap again what was copied on write meanwhile.

    Source:   mm/truncate.c truncate_pagecache(), v4.3.
    """
    memory.unmap_mapping_range(k, mapping, newsize, None, even_cows=True)
    truncate_inode_pages(k, mapping, newsize)
    memory.unmap_mapping_range(k, mapping, newsize, None, even_cows=True)


def truncate_inode_pages(k: Kernel, mapping: AddressSpace, start: int) -> None:
    """Drop every page from `start` on: first those that can be had at once, then the others.

    Source:   mm/truncate.c truncate_inode_pages_range(), v4.3.
    Context:  sleeps.
    Left out: partial pages.
    """
    index = start
    while found := filemap.find_get_entries(k, mapping, index):
        for at, page in found:
            if not isinstance(page, Page):
                clear_exceptional_entry(mapping, at)
            elif trylock_page(page):
                if not PageWriteback(page):
                    truncate_inode_page(k, mapping, page)
                unlock_page(page)
        swap.pagevec_release(k, found)
        index = found[-1][0] + 1
    index = start
    while (found := filemap.find_get_entries(k, mapping, index)) or index != start:
        if not found:
            index = start  # once more, to make sure that all are gone
            continue
        for at, page in found:
            if not isinstance(page, Page):
                clear_exceptional_entry(mapping, at)
                continue
            lock_page(page)
            wait_on_page_writeback(page)
            truncate_inode_page(k, mapping, page)
            unlock_page(page)
        swap.pagevec_release(k, found)
        index = found[-1][0] + 1


def clear_exceptional_entry(mapping: AddressSpace, index: int) -> None:
    """Forget that the page at `index` was reclaimed.

    Source:   mm/truncate.c clear_exceptional_entry(), v4.3.
    Context:  takes tree_lock. What tmpfs has in swap is its own business.
    """
    if mapping.shmem:
        return
    spin_lock_irq(mapping.tree_lock)
    if radix_tree_lookup(mapping, index) == SHADOW:
        radix_tree_store(mapping, index, None)
    spin_unlock_irq(mapping.tree_lock)


def truncate_inode_page(k: Kernel, mapping: AddressSpace, page: Page) -> int:
    """Drop one page of a file.

    Source:   mm/truncate.c truncate_inode_page(), truncate_complete_page(), v4.3.
                                               Patches: e6c509f85455.
    Context:  page locked.
    Returns:  0, or -EIO: it has left the file.
    """
    if page_mapped(page):
        index = page.index
        memory.unmap_mapping_range(k, mapping, index, index + 1, even_cows=False)
    if page.mapping is not mapping:
        return EIO
    if page_private_refs(page):
        buffer.block_invalidatepage(k, page)
    page_writeback.cancel_dirty_page(k, page)
    if C_e6c509f85455 not in k.patches:
        mlock.clear_page_mlock(k, page)
    filemap.delete_from_page_cache(k, page)
    return 0


def invalidate_mapping_pages(k: Kernel, mapping: AddressSpace) -> int:
    """Drop what is clean, unmapped and not locked.

    Source:   mm/truncate.c invalidate_mapping_pages(), v4.3.
    Returns:  how many were dropped. The others are moved down the inactive list.
    """
    count = index = 0
    while found := filemap.find_get_entries(k, mapping, index):
        for at, page in found:
            if not isinstance(page, Page):
                clear_exceptional_entry(mapping, at)
            elif trylock_page(page):
                dropped = invalidate_inode_page(k, page)
                unlock_page(page)
                if dropped:
                    count += 1
                else:
                    swap.deactivate_file_page(k, page)
        swap.pagevec_release(k, found)
        index = found[-1][0] + 1
    return count


def invalidate_inode_page(k: Kernel, page: Page) -> bool:
    """Drop one page if that loses nothing.

    Source:   mm/truncate.c invalidate_inode_page(), invalidate_complete_page(), v4.3.
                                               Patches: e6c509f85455.
    Context:  page locked.
    """
    mapping = util.page_mapping(k, page)
    if mapping is None or PageDirty(page) or PageWriteback(page) or page_mapped(page):
        return False
    if page.mapping is not mapping:
        return False
    if page_private_refs(page) and not buffer.try_to_release_page(k, page):
        return False
    if C_e6c509f85455 not in k.patches:
        mlock.clear_page_mlock(k, page)
    return vmscan.remove_mapping(k, mapping, page)


def invalidate_inode_pages2(
    k: Kernel, mapping: AddressSpace, launder_page: Callable[[Kernel, AddressSpace, Page], None]
) -> None:
    """Drop every page of a file, mapped or dirty, because another has changed it.

    Source:   mm/truncate.c invalidate_inode_pages2_range(), v4.3, for a whole file.
    Context:  sleeps.                          Bugs: BUG: mapped again at once.
    Args:     launder_page: writes a dirty page, and leaves it locked.
    Left out: what it returns, which its one caller here does not look at.
    """
    did_range_unmap = False
    index = 0
    while found := filemap.find_get_entries(k, mapping, index):
        for at, page in found:
            if not isinstance(page, Page):
                clear_exceptional_entry(mapping, at)
                continue
            lock_page(page)
            if page.mapping is not mapping:
                unlock_page(page)
                continue
            wait_on_page_writeback(page)
            if page_mapped(page):
                end = at + 1 if did_range_unmap else None
                memory.unmap_mapping_range(k, mapping, at, end, even_cows=False)
                did_range_unmap = True
            BUG_ON(page_mapped(page), "bug-invalidate-mapped", "page_mapped(page)")
            if PageDirty(page):
                launder_page(k, mapping, page)
            invalidate_complete_page2(k, mapping, page)
            unlock_page(page)
        swap.pagevec_release(k, found)
        index = found[-1][0] + 1


def invalidate_complete_page2(k: Kernel, mapping: AddressSpace, page: Page) -> bool:
    """Drop a page whoever has a reference, unless it is dirty again.

    Source:   mm/truncate.c invalidate_complete_page2(), v4.3.
                                               Patches: e6c509f85455.
    Context:  page locked, unmapped; takes tree_lock.
    """
    if page.mapping is not mapping:
        return False
    if page_private_refs(page) and not buffer.try_to_release_page(k, page):
        return False
    if C_e6c509f85455 not in k.patches:
        mlock.clear_page_mlock(k, page)
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    spin_lock_irq(mapping.tree_lock)
    clean = not PageDirty(page)
    if clean:
        k.machine.note("page-discarded", page, mapping)
        filemap.__delete_from_page_cache(k, mapping, page, memcg=memcg)
    spin_unlock_irq(mapping.tree_lock)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)
    if clean:
        swap.put_page(k, page)
    return clean
