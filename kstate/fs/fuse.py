"""fs/fuse: a file system whose server passes a disk file through, with splice(2)."""

from __future__ import annotations

from kstate.flags import (
    EINVAL,
    ENOMEM,
    VM_FAULT_LOCKED,
    VM_FAULT_NOPAGE,
    PG_active,
    PG_locked,
    PG_lru,
    PG_reclaim,
    PG_referenced,
    PG_uptodate,
)
from kstate.fs import buffer
from kstate.machine import look, mutex_lock, mutex_unlock, touch
from kstate.mm import filemap, page_alloc, page_writeback, swap, truncate, util, vmscan
from kstate.pageflags import (
    PageUptodate,
    SetPageUptodate,
    get_page,
    lock_page,
    page_private_refs,
    unlock_page,
    wait_on_page_writeback,
)
from kstate.structs import AddressSpace, Kernel, Page, VmAreaStruct

FUSE_PAGE_FLAGS = PG_locked | PG_referenced | PG_uptodate | PG_lru | PG_active | PG_reclaim


def fuse_setsize(k: Kernel, mapping: AddressSpace, pages: int) -> None:
    """ftruncate(2): once the server has a new size, every cached page goes.

    Source:   fs/fuse/dir.c fuse_do_setattr(), v4.3.
    Context:  takes i_mutex.                   Args: pages: the new size.
    """
    mutex_lock(mapping.i_mutex)
    for index in [index for index in mapping.backing if index >= pages]:
        del mapping.backing[index]
    oldsize = mapping.i_size
    mapping.i_size = pages
    if oldsize != pages:
        truncate.truncate_pagecache(k, mapping, pages)
        truncate.invalidate_inode_pages2(k, mapping, fuse_launder_page)
    mutex_unlock(mapping.i_mutex)


def fuse_launder_page(k: Kernel, mapping: AddressSpace, page: Page) -> None:
    """Write a dirty page that is about to go. Source: fs/fuse/file.c fuse_launder_page(), v4.3.

    Context:  page locked, and stays so."""
    if page_writeback.clear_page_dirty_for_io(k, page):
        fuse_writepage_locked(k, mapping, page)


def fuse_writepage(k: Kernel, mapping: AddressSpace, page: Page) -> None:
    """Write one page to the server; it comes back unlocked. Source: fs/fuse/file.c
    fuse_writepage(), v4.3.

    Context:  page locked, clean."""
    fuse_writepage_locked(k, mapping, page)
    unlock_page(page)


def fuse_writepage_locked(k: Kernel, mapping: AddressSpace, page: Page) -> None:
    """Write one page to the server, from a copy: its writeback is over when this returns.

    Source:   fs/fuse/file.c fuse_writepage_locked(), v4.3.
    Context:  page locked, clean.
    Left out: the copy, which the server has at once; its own writeback accounting.
    """
    index = page.index
    page_writeback.set_page_writeback(k, page)
    look(page, "content")
    mapping.backing[index] = page._token
    page_writeback.end_page_writeback(k, page)


def fuse_writepages(k: Kernel, mapping: AddressSpace, *, sync: bool) -> None:
    """Write every dirty page of a file to the server, in one request: they are under writeback,
    and not locked any more, until the last of them has been copied.

    Source:   fs/fuse/file.c fuse_writepages(), fuse_writepages_fill(), fuse_writepages_send(),
              v4.3.
    Args:     sync: as write_cache_pages.
    """
    orig_pages: list[Page] = []

    def fill(page: Page) -> None:
        index = page.index
        page_writeback.set_page_writeback(k, page)
        look(page, "content")
        mapping.backing[index] = page._token
        orig_pages.append(page)
        unlock_page(page)

    page_writeback.write_cache_pages(k, mapping, fill, sync=sync)
    for page in orig_pages:
        page_writeback.end_page_writeback(k, page)


def fuse_page_mkwrite(k: Kernel, vma: VmAreaStruct, page: Page) -> int:
    """A shared mapping is about to be written through; the fault itself marks the page dirty.

    Source:   fs/fuse/file.c fuse_page_mkwrite(), v4.3.
    Context:  page not locked; comes back locked with VM_FAULT_LOCKED.
    Returns:  VM_FAULT_NOPAGE where the page has left the file meanwhile.
    """
    lock_page(page)
    if page.mapping is not vma.vm_file:
        unlock_page(page)
        return VM_FAULT_NOPAGE
    return VM_FAULT_LOCKED


def fuse_vma_close(k: Kernel, vma: VmAreaStruct) -> None:
    """A mapping goes: what was written through it is written to the server. A vma that has a close
    merges with no other.

    Source:   fs/fuse/file.c fuse_vma_close(), v4.3.
    """
    assert vma.vm_file is not None
    page_writeback.filemap_write_and_wait(k, vma.vm_file)


def fuse_splice_read(k: Kernel, mapping: AddressSpace, source: AddressSpace, index: int) -> int:
    """Read a page that is not cached yet; the server answers with a page to be taken as it is.

    Source:   fs/fuse/file.c fuse_readpages(); fs/fuse/dev.c fuse_try_move_page(), v4.3.
    Context:  process context. The server's part is done in the reader's context.
    Args:     source: the file the server passes on; where its page is not cached, or is in use, the
              server has written a page of its own into the pipe.
    Returns:  0, also where the page is cached already; -EINVAL: beyond the file; -ENOMEM.
    Left out: readahead of more than the page; requests that are aborted.
    """
    if index >= mapping.i_size:
        return EINVAL
    cached = filemap.find_get_page(k, mapping, index)
    if cached is not None:
        swap.put_page(k, cached)
        return 0
    oldpage = page_alloc.alloc_page(k)
    if oldpage is None:
        return ENOMEM
    error = filemap.add_to_page_cache_lru(k, mapping, oldpage, index)
    if error:
        swap.put_page(k, oldpage)
        return ENOMEM if error == ENOMEM else 0
    token = mapping.backing.get(index, 0)
    newpage = page_cache_pipe_buf_steal(k, source, index)
    on_lru = newpage is not None
    if newpage is None:
        newpage = page_alloc.alloc_page(k)
        if newpage is not None:
            lock_page(newpage)
    if newpage is None or fuse_check_page(newpage):
        if newpage is not None:
            unlock_page(newpage)
            swap.put_page(k, newpage)
        touch(oldpage, "content")
        oldpage._token = token  # copied instead
        SetPageUptodate(oldpage)
        unlock_page(oldpage)
        swap.put_page(k, oldpage)
        return 0
    if not PageUptodate(newpage):
        SetPageUptodate(newpage)
    touch(newpage, "content")
    newpage._token = token
    filemap.replace_page_cache_page(k, oldpage, newpage)
    get_page(newpage)
    if not on_lru:
        swap.lru_cache_add_inactive(k, newpage)
    unlock_page(oldpage)
    swap.put_page(k, oldpage)
    unlock_page(newpage)
    swap.put_page(k, newpage)  # the request's
    swap.put_page(k, newpage)  # the pipe's
    return 0


def fuse_check_page(page: Page) -> bool:
    """Is there anything weird about a stolen page? No step.

    Source:   fs/fuse/dev.c fuse_check_page(), v4.3."""
    look(page)
    strange = page._flags & ~FUSE_PAGE_FLAGS
    return bool(page._mapcount or page._mapping is not None or page._refcount != 1 or strange)


def page_cache_pipe_buf_steal(k: Kernel, source: AddressSpace, index: int) -> Page | None:
    """Take a page out of a file for good, if nobody else needs it.

    Source:   fs/splice.c page_cache_pipe_buf_steal(), v4.3.
    Context:  sleeps.
    Returns:  the page, locked, with the pipe's reference; it may be on an LRU list.
    """
    page = filemap.find_get_page(k, source, index)
    if page is None:
        return None
    lock_page(page)
    mapping = util.page_mapping(k, page)
    if mapping is not None:
        wait_on_page_writeback(page)
        releasable = not page_private_refs(page) or buffer.try_to_release_page(k, page)
        if releasable and vmscan.remove_mapping(k, mapping, page):
            return page
    unlock_page(page)
    swap.put_page(k, page)
    return None
