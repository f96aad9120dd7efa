"""mm/page-writeback.c: dirtying pages, cleaning them, writing them back."""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import (
    ENOENT,
    MEM_CGROUP_STAT_DIRTY,
    MEM_CGROUP_STAT_WRITEBACK,
    NR_DIRTIED,
    NR_FILE_DIRTY,
    NR_WRITEBACK,
    NR_WRITTEN,
    PG_locked,
    PG_private,
    PG_swapcache,
    PG_uptodate,
    PG_writeback,
)
from kstate.fs import ext2, fuse
from kstate.machine import spin_lock, spin_lock_irq, spin_unlock, spin_unlock_irq
from kstate.mm import filemap, memcontrol, rmap, swap, util
from kstate.mm.debug import BUG_ON
from kstate.pageflags import (
    ClearPageDirty,
    ClearPageReclaim,
    PageDirty,
    PageReclaim,
    PageWriteback,
    TestClearPageDirty,
    TestClearPageWriteback,
    TestSetPageDirty,
    TestSetPageWriteback,
    lock_page,
    peek,
    unlock_page,
    wait_on_page_writeback,
)
from kstate.structs import (
    TAG_DIRTY,
    TAG_WRITEBACK,
    AddressSpace,
    Kernel,
    MemCgroup,
    Page,
    radix_tree_tag,
    test_set_buffer_dirty,
)


def account_page_dirtied(
    k: Kernel, page: Page, mapping: AddressSpace, memcg: MemCgroup | None
) -> None:
    """Count a page that has become dirty, where its file system counts them.

    Source:   mm/page-writeback.c account_page_dirtied(), v4.3.
    Context:  tree_lock held, between mem_cgroup_begin_page_stat, which gave `memcg`, and its end.
    Left out: the tracepoint, ratelimits; task_io and nr_dirtied are one counter, k.dirtied.
    """
    if mapping.accounts_dirty:
        memcontrol.mem_cgroup_update_page_stat(memcg, MEM_CGROUP_STAT_DIRTY, 1)
        page.zone.stat[NR_FILE_DIRTY] += 1
        page.zone.stat[NR_DIRTIED] += 1
        task = k.machine.current.index
        k.dirtied[task] = k.dirtied.get(task, 0) + 1
        k.machine.note("page-dirtied", page)


def account_page_cleaned(page: Page, memcg: MemCgroup | None) -> None:
    """Count a page, of a file system that counts them, that is dirty no more.

    Source:   mm/page-writeback.c account_page_cleaned(), v4.3. Context: as account_page_dirtied.
    """
    memcontrol.mem_cgroup_update_page_stat(memcg, MEM_CGROUP_STAT_DIRTY, -1)
    page.zone.stat[NR_FILE_DIRTY] -= 1


def set_page_dirty(k: Kernel, page: Page) -> bool:
    """Mark a page dirty.

    Source:   mm/page-writeback.c set_page_dirty(); mm/page_io.c swap_set_page_dirty(), v4.3.
    Context:  page locked, or the ptl of a pte that maps it held.
    Returns:  True where it was clean.
    Bugs:     BUG: it has left the swap cache meanwhile.
    """
    mapping = util.page_mapping(k, page)
    if mapping is None:
        if PageDirty(page):
            return False
        return not TestSetPageDirty(page)
    if PageReclaim(page):
        ClearPageReclaim(page)
    if mapping is k.swap.space:
        BUG_ON(not peek(page, PG_swapcache), "bug-page-swap-info", "!PageSwapCache(page)")
    if not mapping.accounts_dirty:
        return __set_page_dirty_no_writeback(page)
    if mapping.fs == "fuse":
        return __set_page_dirty_nobuffers(k, page)
    return __set_page_dirty_buffers(k, page, mapping)


def __set_page_dirty_no_writeback(page: Page) -> bool:
    """set_page_dirty of tmpfs, the swap cache, ramfs and aio rings: a flag, nothing else.

    Source:   mm/page-writeback.c __set_page_dirty_no_writeback(), v4.3.
    """
    if PageDirty(page):
        return False
    return not TestSetPageDirty(page)


def __set_page_dirty_buffers(k: Kernel, page: Page, mapping: AddressSpace) -> bool:
    """set_page_dirty of a disk file.

    Source:   fs/buffer.c __set_page_dirty_buffers(), v4.3.
    Context:  takes private_lock, then tree_lock.
    Left out: inode dirtying.
    """
    spin_lock(mapping.private_lock)
    if page.buffers is not None:
        test_set_buffer_dirty(page.buffers)
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    newly_dirty = not TestSetPageDirty(page)
    spin_unlock(mapping.private_lock)
    if newly_dirty:
        __set_page_dirty(k, page, mapping, memcg, warn=True)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)
    return newly_dirty


def __set_page_dirty(
    k: Kernel, page: Page, mapping: AddressSpace, memcg: MemCgroup | None, *, warn: bool
) -> None:
    """Count and tag a page that has just become dirty, unless truncation was faster.

    Source:   fs/buffer.c __set_page_dirty(), v4.3.
    Context:  takes tree_lock.                 Bugs: reports WARN_ONCE: not up to date.
    """
    spin_lock_irq(mapping.tree_lock)
    if page.mapping is not None:
        _warn_not_uptodate(k, page, warn and peek(page, PG_uptodate) == 0)
        account_page_dirtied(k, page, mapping, memcg)
        radix_tree_tag(mapping, page.index, TAG_DIRTY, True)
    spin_unlock_irq(mapping.tree_lock)


def __set_page_dirty_nobuffers(k: Kernel, page: Page) -> bool:
    """set_page_dirty without the file system's own ideas.

    Source:   mm/page-writeback.c __set_page_dirty_nobuffers(), v4.3.
    Bugs:     BUG: the mapping changed. Reports WARN_ONCE: neither private nor up to date.
    """
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    if TestSetPageDirty(page):
        memcontrol.mem_cgroup_end_page_stat(page, memcg)
        return False
    mapping = util.page_mapping(k, page)
    if mapping is None:
        memcontrol.mem_cgroup_end_page_stat(page, memcg)
        return True
    spin_lock_irq(mapping.tree_lock)
    BUG_ON(
        util.page_mapping(k, page) is not mapping,
        "bug-set-page-dirty-mapping",
        "page_mapping(page) != mapping",
    )
    _warn_not_uptodate(k, page, peek(page, PG_private | PG_uptodate) == 0)
    account_page_dirtied(k, page, mapping, memcg)
    radix_tree_tag(mapping, util.page_index(k, page, mapping), TAG_DIRTY, True)
    spin_unlock_irq(mapping.tree_lock)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)
    return True


def redirty_page_for_writepage(k: Kernel, page: Page) -> None:
    """It could not be written now after all: dirty again, and not counted as dirtied.

    Source:   mm/page-writeback.c redirty_page_for_writepage(), account_page_redirty(), v4.3.
    Context:  page locked.
    """
    __set_page_dirty_nobuffers(k, page)
    mapping = util.page_mapping(k, page)
    if mapping is not None and mapping.accounts_dirty:
        page.zone.stat[NR_DIRTIED] -= 1
        task = k.machine.current.index
        k.dirtied[task] = k.dirtied.get(task, 0) - 1


def _warn_not_uptodate(k: Kernel, page: Page, condition: bool) -> None:
    if condition:
        k.machine.report(
            "warn-dirty-not-uptodate",
            "WARNING: !PagePrivate(page) && !PageUptodate(page)",
            "mm/page_writeback.py:__set_page_dirty_nobuffers",
            page,
        )


def clear_page_dirty_for_io(k: Kernel, page: Page) -> bool:
    """Clear PG_dirty, of the page and of its ptes; True where it was set.

    Source:   mm/page-writeback.c clear_page_dirty_for_io(), v4.3.
    Context:  page locked.                     Bugs: BUG: page not locked.
    """
    mapping = util.page_mapping(k, page)
    BUG_ON(not peek(page, PG_locked), "bug-clear-page-dirty-unlocked", "!PageLocked(page)")
    if mapping is not None and mapping.accounts_dirty:
        if rmap.page_mkclean(k, page):
            set_page_dirty(k, page)
        memcg = memcontrol.mem_cgroup_begin_page_stat(page)
        was = TestClearPageDirty(page)
        if was:
            account_page_cleaned(page, memcg)
        memcontrol.mem_cgroup_end_page_stat(page, memcg)
        return was
    return TestClearPageDirty(page)


def dirty_cached_page(k: Kernel, mapping: AddressSpace, index: int) -> int:
    """Look a page up and mark it dirty with no more than a reference, which breaks the rule.

    Source:   mm/page-writeback.c set_page_dirty(), v4.3, for a caller that should have used
              set_page_dirty_lock().
    Context:  process context.                 Returns: 0, or -ENOENT: nothing is cached there.
    """
    page = filemap.find_get_page(k, mapping, index)
    if page is None:
        return ENOENT
    set_page_dirty(k, page)
    swap.put_page(k, page)
    return 0


def cancel_dirty_page(k: Kernel, page: Page) -> None:
    """Its content is not wanted any more: no need to write it.

    Source:   mm/page-writeback.c cancel_dirty_page(), v4.3.
    Context:  page locked.
    """
    mapping = util.page_mapping(k, page)
    if mapping is not None and mapping.accounts_dirty:
        memcg = memcontrol.mem_cgroup_begin_page_stat(page)
        if TestClearPageDirty(page):
            account_page_cleaned(page, memcg)
        memcontrol.mem_cgroup_end_page_stat(page, memcg)
    else:
        ClearPageDirty(page)


def set_page_writeback(k: Kernel, page: Page) -> None:
    """I/O begins.

    Source:   mm/page-writeback.c __test_set_page_writeback(), v4.3.
    Context:  page locked; takes tree_lock.
    """
    mapping = util.page_mapping(k, page)
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    if mapping is None:
        was = TestSetPageWriteback(page)
    else:
        spin_lock_irq(mapping.tree_lock)
        was = TestSetPageWriteback(page)
        if not was:
            radix_tree_tag(mapping, util.page_index(k, page, mapping), TAG_WRITEBACK, True)
        if not PageDirty(page):
            radix_tree_tag(mapping, util.page_index(k, page, mapping), TAG_DIRTY, False)
        spin_unlock_irq(mapping.tree_lock)
    if not was:
        memcontrol.mem_cgroup_update_page_stat(memcg, MEM_CGROUP_STAT_WRITEBACK, 1)
        page.zone.stat[NR_WRITEBACK] += 1
    memcontrol.mem_cgroup_end_page_stat(page, memcg)


def end_page_writeback(k: Kernel, page: Page) -> None:
    """I/O is done: wake those who wait for it.

    Source:   mm/filemap.c end_page_writeback(), v4.3; mm/page-writeback.c
              test_clear_page_writeback(), v4.3.
    Context:  any; takes tree_lock.            Bugs: BUG: not under writeback.
    """
    if PageReclaim(page):
        ClearPageReclaim(page)
        swap.rotate_reclaimable_page(k, page)
    mapping = util.page_mapping(k, page)
    memcg = memcontrol.mem_cgroup_begin_page_stat(page)
    if mapping is not None:
        spin_lock_irq(mapping.tree_lock)
        was = TestClearPageWriteback(page)
        if was:
            radix_tree_tag(mapping, util.page_index(k, page, mapping), TAG_WRITEBACK, False)
        spin_unlock_irq(mapping.tree_lock)
    else:
        was = TestClearPageWriteback(page)
    if was:
        memcontrol.mem_cgroup_update_page_stat(memcg, MEM_CGROUP_STAT_WRITEBACK, -1)
    memcontrol.mem_cgroup_end_page_stat(page, memcg)
    BUG_ON(not was, "bug-end-page-writeback", "!test_clear_page_writeback(page)")
    page.zone.stat[NR_WRITEBACK] -= 1
    page.zone.stat[NR_WRITTEN] += 1


def write_cache_pages(
    k: Kernel, mapping: AddressSpace, writepage: Callable[[Page], None], *, sync: bool
) -> None:
    """Write every dirty page of a file.

    Source:   mm/page-writeback.c write_cache_pages(), v4.3.
    Context:  sleeps; locks each page.
    Args:     writepage: starts the I/O and unlocks the page. sync: WB_SYNC_ALL: wait for those
              under I/O already, and write them again; else WB_SYNC_NONE: leave them.
    Bugs:     BUG: under writeback.
    """
    index = 0
    while found := filemap.find_get_entries(k, mapping, index, tag=TAG_DIRTY):
        for _, page in found:
            assert isinstance(page, Page)
            lock_page(page)
            if page.mapping is not mapping or not PageDirty(page):
                unlock_page(page)
                continue
            if PageWriteback(page):
                if not sync:
                    unlock_page(page)
                    continue
                wait_on_page_writeback(page)
            BUG_ON(
                peek(page, PG_writeback) != 0,
                "bug-write-cache-pages-writeback",
                "PageWriteback(page)",
            )
            if clear_page_dirty_for_io(k, page):
                writepage(page)
            else:
                unlock_page(page)
        swap.pagevec_release(k, found)
        index = found[-1][0] + 1


def do_writepages(k: Kernel, mapping: AddressSpace, *, sync: bool) -> None:
    """Write the dirty pages of a file that is on a disk, or at a server.

    Source:   mm/page-writeback.c do_writepages(), v4.3.      Args: as write_cache_pages.
    """
    if mapping.fs == "ext2":
        ext2.ext2_writepages(k, mapping, sync=sync)
    elif mapping.fs == "fuse":
        fuse.fuse_writepages(k, mapping, sync=sync)


def filemap_write_and_wait(k: Kernel, mapping: AddressSpace) -> None:
    """Write a file's dirty pages, and wait until all is written.

    Source:   mm/filemap.c filemap_write_and_wait(), v4.3.    Context: sleeps.
    """
    if mapping.nrpages:
        do_writepages(k, mapping, sync=True)
        filemap_fdatawait(k, mapping)


def filemap_fdatawait(k: Kernel, mapping: AddressSpace) -> None:
    """Wait for all I/O on a file. Source: mm/filemap.c filemap_fdatawait_range(), v4.3."""
    index = 0
    while found := filemap.find_get_entries(k, mapping, index, tag=TAG_WRITEBACK):
        for _, page in found:
            assert isinstance(page, Page)
            wait_on_page_writeback(page)
        swap.pagevec_release(k, found)
        index = found[-1][0] + 1
