"""fs/libfs.c, fs/ramfs: files that are nowhere but in the page cache; and what any file can do."""

from __future__ import annotations

from kstate.flags import EFBIG, ENOMEM
from kstate.fs import buffer, ext2, fuse
from kstate.machine import (
    mutex_lock,
    mutex_unlock,
    touch,
)
from kstate.mm import filemap, page_alloc, page_writeback, shmem, swap, truncate
from kstate.pageflags import SetPageUptodate, unlock_page, wait_on_page_writeback
from kstate.structs import AddressSpace, Kernel, Page


def notify_change(k: Kernel, mapping: AddressSpace, pages: int) -> None:
    """ftruncate(2).

    Source:   fs/attr.c notify_change(); fs/libfs.c simple_setattr() for ramfs, and fuse's is like
              it; v4.3.
    Context:  takes i_mutex.                   Args: pages: the new size.
    """
    if mapping.shmem:
        shmem.shmem_setsize(k, mapping, pages)
    elif mapping.fs == "ext2":
        ext2.ext2_setsize(k, mapping, pages)
    else:
        mutex_lock(mapping.i_mutex)
        truncate.truncate_setsize(k, mapping, pages)
        for index in [index for index in mapping.backing if index >= pages]:
            del mapping.backing[index]
        mutex_unlock(mapping.i_mutex)


def vfs_fsync(k: Kernel, mapping: AddressSpace) -> int:
    """fsync(2). Source: fs/sync.c vfs_fsync(); fs/libfs.c noop_fsync(), v4.3. Returns: 0."""
    if mapping.fs == "ext2":
        return ext2.ext2_fsync(k, mapping)
    if mapping.fs == "fuse":
        return fuse.fuse_fsync(k, mapping)
    return 0


def generic_file_write(k: Kernel, mapping: AddressSpace, index: int, pages_max: int) -> int:
    """pwrite(2) of one whole page.

    Source:   mm/filemap.c generic_perform_write(), grab_cache_page_write_begin(); fs/buffer.c
              block_write_begin(), generic_write_end(); fs/libfs.c simple_write_end(); mm/shmem.c
              shmem_write_begin(), shmem_write_end(), v4.3.
    Context:  takes i_mutex, then the page lock.
    Args:     index: page offset; the file grows. pages_max: it cannot be larger.
    Returns:  0; -EFBIG; -ENOMEM.
    Left out: throttling of dirtiers, partial pages, writes that are faulted in from user memory.
    """
    if index >= pages_max:
        return EFBIG
    mutex_lock(mapping.i_mutex)
    if mapping.shmem:
        error, _, page = shmem.shmem_getpage(k, mapping, index, write=True)
    else:
        error, page = _grab_cache_page(k, mapping, index)
    if page is not None:
        _write_page(k, mapping, page, index)
        if index >= mapping.i_size:
            mapping.i_size = index + 1
        unlock_page(page)
        swap.put_page(k, page)
    mutex_unlock(mapping.i_mutex)
    return error


def _grab_cache_page(k: Kernel, mapping: AddressSpace, index: int) -> tuple[int, Page | None]:
    """The page to write to, locked."""
    while True:
        page = filemap.find_lock_entry(k, mapping, index)
        if isinstance(page, Page):
            swap.mark_page_accessed(k, page)
            wait_on_page_writeback(page)
            return 0, page
        page = page_alloc.alloc_page(k)
        if page is None:
            return ENOMEM, None
        error = filemap.add_to_page_cache_locked(k, mapping, page, index)
        if not error:
            swap.lru_cache_add(k, page)
            return 0, page
        swap.put_page(k, page)
        if error == ENOMEM:
            return error, None


def _write_page(k: Kernel, mapping: AddressSpace, page: Page, index: int) -> None:
    """Copy the user's bytes in, and mark the page dirty as its file system does. A tmpfs file grows
    first, others after."""
    if mapping.fs == "ext2":
        buffer.create_page_buffers(page, mapping)
    k.tokens_count += 1
    touch(page, "content")
    page._token = k.tokens_count
    k.machine.note("page-written", page, None)  # by no pte
    if mapping.shmem and index >= mapping.i_size:
        mapping.i_size = index + 1
    SetPageUptodate(page)
    if mapping.fs == "ext2":
        buffer.mark_buffer_dirty(k, page)
    else:
        page_writeback.set_page_dirty(k, page)
