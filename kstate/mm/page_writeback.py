"""mm/page-writeback.c: dirtying and cleaning pages, as far as counters go."""

from __future__ import annotations

from kstate.flags import NR_FILE_DIRTY, PG_locked, PG_private, PG_uptodate
from kstate.mm.debug import BUG_ON
from kstate.pageflags import TestClearPageDirty, TestSetPageDirty
from kstate.structs import AddressSpace, Kernel, Page


def mapping_cap_account_dirty(page: Page) -> bool:
    """Are this page's dirty pages counted? ext2 pages are; tmpfs and anonymous pages are not."""
    mapping = page.mapping
    return isinstance(mapping, AddressSpace) and not mapping.shmem


def set_page_dirty(k: Kernel, page: Page) -> bool:
    """Mark a page dirty.

    Source:   mm/page-writeback.c set_page_dirty(), account_page_dirtied(), v4.3.
    Context:  page locked, or the ptl of a pte that maps it held.
    Returns:  True where it was clean.
    Left out: radix tree tags, buffers, inode dirtying, everything counted but NR_FILE_DIRTY.
    """
    if TestSetPageDirty(page):
        return False
    if mapping_cap_account_dirty(page):
        page.zone.stat[NR_FILE_DIRTY] += 1
    return True


def __set_page_dirty_nobuffers(k: Kernel, page: Page) -> bool:
    """set_page_dirty without the file system's own ideas.

    Source:   mm/page-writeback.c __set_page_dirty_nobuffers(), v4.3.
    Bugs:     reports WARN_ONCE: neither private nor up to date.
    """
    if TestSetPageDirty(page):
        return False
    if not page._flags & (PG_private | PG_uptodate):
        k.machine.report(
            "warn-dirty-not-uptodate",
            "WARNING: !PagePrivate(page) && !PageUptodate(page)",
            "mm/page_writeback.py:__set_page_dirty_nobuffers",
            page,
        )
    if mapping_cap_account_dirty(page):
        page.zone.stat[NR_FILE_DIRTY] += 1
    return True


def clear_page_dirty_for_io(k: Kernel, page: Page) -> bool:
    """Clear PG_dirty; True where it was set.

    Source:   mm/page-writeback.c clear_page_dirty_for_io(), v4.3.
    Context:  page locked.                     Bugs: BUG: page not locked.
    Left out: page_mkclean: its only caller here has unmapped the page.
    """
    BUG_ON(not page._flags & PG_locked, "bug-clear-page-dirty-unlocked", "!PageLocked(page)")
    if not TestClearPageDirty(page):
        return False
    if mapping_cap_account_dirty(page):
        page.zone.stat[NR_FILE_DIRTY] -= 1
    return True
