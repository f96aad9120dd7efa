"""Atomic operations on struct page: flags, references, the page lock. One step each.

Source: include/linux/page-flags.h, mm.h, pagemap.h, mm_inline.h.
"""

from __future__ import annotations

from collections.abc import Callable

from kstate.flags import (
    PAGE_BALLOON_MAPCOUNT,
    PAGE_FLAG_NAMES,
    PG_active,
    PG_dirty,
    PG_head,
    PG_huge_active,
    PG_locked,
    PG_lru,
    PG_mlocked,
    PG_private,
    PG_reclaim,
    PG_referenced,
    PG_swapbacked,
    PG_swapcache,
    PG_unevictable,
    PG_uptodate,
    PG_writeback,
)
from kstate.machine import LOAD, KernelBug, Primitive, Task, look, step
from kstate.machine.machine import atomic_context, calling_function, might_sleep
from kstate.structs import ANON, LOAD_MAPPING, AnonVma, Page, StableNode

PageOp = Callable[[Page], None]
PageTest = Callable[[Page], bool]


def peek(page: Page, mask: int) -> int:
    """The flags of a mask, without a step: for checks, which are no part of what races."""
    look(page, _WORDS.get(mask, "flags"))
    return page._flags & mask


_WORDS = {bit: f"flags.{name}" for bit, name in PAGE_FLAG_NAMES.items()}


def _tester(bit: int) -> PageTest:
    primitive = Primitive("test_bit", f"flags.{PAGE_FLAG_NAMES[bit]}", LOAD, results=1)

    def test(page: Page) -> bool:
        log = step(primitive, page)
        value = page._flags & bit != 0
        log.append(value)
        return value

    return test


def _setter(bit: int) -> PageOp:
    primitive = Primitive("set_bit", f"flags.{PAGE_FLAG_NAMES[bit]}")

    def set_flag(page: Page) -> None:
        step(primitive, page)
        page._flags |= bit

    return set_flag


def _clearer(bit: int) -> PageOp:
    primitive = Primitive("clear_bit", f"flags.{PAGE_FLAG_NAMES[bit]}")

    def clear_flag(page: Page) -> None:
        step(primitive, page)
        page._flags &= ~bit

    return clear_flag


def _test_and_set(bit: int) -> PageTest:
    primitive = Primitive("test_and_set_bit", f"flags.{PAGE_FLAG_NAMES[bit]}", results=1)

    def test_and_set(page: Page) -> bool:
        log = step(primitive, page)
        was = page._flags & bit != 0
        page._flags |= bit
        log.append(was)
        return was

    return test_and_set


def _test_and_clear(bit: int) -> PageTest:
    primitive = Primitive("test_and_clear_bit", f"flags.{PAGE_FLAG_NAMES[bit]}", results=1)

    def test_and_clear(page: Page) -> bool:
        log = step(primitive, page)
        was = page._flags & bit != 0
        page._flags &= ~bit
        log.append(was)
        return was

    return test_and_clear


PageReferenced = _tester(PG_referenced)
SetPageReferenced = _setter(PG_referenced)
ClearPageReferenced = _clearer(PG_referenced)
TestClearPageReferenced = _test_and_clear(PG_referenced)
PageUptodate = _tester(PG_uptodate)
SetPageUptodate = _setter(PG_uptodate)
PageDirty = _tester(PG_dirty)
SetPageDirty = _setter(PG_dirty)
TestSetPageDirty = _test_and_set(PG_dirty)
ClearPageDirty = _clearer(PG_dirty)
TestClearPageDirty = _test_and_clear(PG_dirty)
PageLRU = _tester(PG_lru)
SetPageLRU = _setter(PG_lru)
ClearPageLRU = _clearer(PG_lru)
PageActive = _tester(PG_active)
SetPageActive = _setter(PG_active)
ClearPageActive = _clearer(PG_active)
TestClearPageActive = _test_and_clear(PG_active)
PageSwapBacked = _tester(PG_swapbacked)
SetPageSwapBacked = _setter(PG_swapbacked)
ClearPageSwapBacked = _clearer(PG_swapbacked)
PageUnevictable = _tester(PG_unevictable)
SetPageUnevictable = _setter(PG_unevictable)
ClearPageUnevictable = _clearer(PG_unevictable)
TestClearPageUnevictable = _test_and_clear(PG_unevictable)
PageMlocked = _tester(PG_mlocked)
TestSetPageMlocked = _test_and_set(PG_mlocked)
PageWriteback = _tester(PG_writeback)
TestSetPageWriteback = _test_and_set(PG_writeback)
PageSwapCache = _tester(PG_swapcache)
SetPageSwapCache = _setter(PG_swapcache)
ClearPageSwapCache = _clearer(PG_swapcache)
PageReclaim = _tester(PG_reclaim)
SetPageReclaim = _setter(PG_reclaim)
ClearPageReclaim = _clearer(PG_reclaim)
TestClearPageReclaim = _test_and_clear(PG_reclaim)
PagePrivate = _tester(PG_private)
SetPagePrivate = _setter(PG_private)
ClearPagePrivate = _clearer(PG_private)
PageHugeActive = _tester(PG_huge_active)
SetPageHugeActive = _setter(PG_huge_active)
ClearPageHugeActive = _clearer(PG_huge_active)

_CLEAR_MLOCKED = Primitive("test_and_clear_bit", "flags.mlocked", results=1)


def TestClearPageMlocked(page: Page) -> bool:
    """Remembers who cleared the flag last: two claims are about just that."""
    log = step(_CLEAR_MLOCKED, page)
    was = page._flags & PG_mlocked != 0
    if was:
        page._flags &= ~PG_mlocked
        page.cleared_mlocked = (page.machine.current.index, len(log))
    log.append(was)
    return was


def PageHuge(page: Page) -> bool:
    """Is it hugetlb's? No step: it is one for good, or never."""
    return page._flags & PG_head != 0


def PageAnon(page: Page) -> bool:
    """Is it an anonymous page? Asked of page->mapping."""
    log = step(LOAD_MAPPING, page)
    mapping = page._mapping
    log.append(-1 if mapping is None else mapping.id)
    return isinstance(mapping, ANON)


def PageKsm(page: Page) -> bool:
    """Was it merged with others that hold the same? Asked of page->mapping."""
    log = step(LOAD_MAPPING, page)
    mapping = page._mapping
    log.append(-1 if mapping is None else mapping.id)
    return isinstance(mapping, StableNode)


def PageAnonNotKsm(page: Page) -> bool:
    """PageAnon(page) && !PageKsm(page), in one look at page->mapping."""
    log = step(LOAD_MAPPING, page)
    mapping = page._mapping
    log.append(-1 if mapping is None else mapping.id)
    return isinstance(mapping, AnonVma)


# ---- writeback: PG_writeback is a lock to wait on, with no owner ------------------------------


def _not_written_back(page: Page, task: Task) -> bool:
    return not page._flags & PG_writeback


_CLEAR_WRITEBACK = Primitive("test_and_clear_bit", "flags.writeback", results=1)
_WAIT_ON_PAGE_WRITEBACK = Primitive(
    "wait_on_page_writeback", "flags.writeback", LOAD, ready=_not_written_back
)


def TestClearPageWriteback(page: Page) -> bool:
    """Ends the wait of those in wait_on_page_writeback."""
    log = step(_CLEAR_WRITEBACK, page)
    was = page._flags & PG_writeback != 0
    page._flags &= ~PG_writeback
    log.append(was)
    if page.machine.wakes:
        page.machine.woke()
    return was


def wait_on_page_writeback(page: Page) -> None:
    machine = page.machine
    if atomic_context(machine.current):
        might_sleep(machine, "wait_on_page_writeback")
    if page._flags & PG_writeback:
        machine.interrupt()
    step(_WAIT_ON_PAGE_WRITEBACK, page)


# ---- the page lock ---------------------------------------------------------------------------


def _unlocked(page: Page, task: Task) -> bool:
    return not page._flags & PG_locked


def _lock_owner(page: Page, task: Task) -> list[Task]:
    return [page.lock_owner] if page.lock_owner is not None else []


_LOCK_PAGE = Primitive("lock_page", "flags.locked", ready=_unlocked, holders=_lock_owner)
_LOCK_NEW_PAGE = Primitive("set_page_locked", "flags.locked")
_TRYLOCK_PAGE = Primitive("trylock_page", "flags.locked", results=1)
_UNLOCK_PAGE = Primitive("unlock_page", "flags.locked")
_WAIT_ON_PAGE_LOCKED = Primitive(
    "wait_on_page_locked", "flags.locked", LOAD, ready=_unlocked, holders=_lock_owner
)


def lock_page(page: Page) -> None:
    """Sleeps until PG_locked is clear, and sets it."""
    machine = page.machine
    if atomic_context(machine.current):
        might_sleep(machine, "lock_page")
    if page._flags & PG_locked:
        machine.interrupt()
    step(_LOCK_PAGE, page)
    page._flags |= PG_locked
    page.lock_owner = machine.current


def trylock_page(page: Page) -> bool:
    log = step(_TRYLOCK_PAGE, page)
    if page._flags & PG_locked:
        log.append(0)
        return False
    log.append(1)
    page._flags |= PG_locked
    page.lock_owner = page.machine.current
    return True


def unlock_page(page: Page) -> None:
    step(_UNLOCK_PAGE, page)
    if not page._flags & PG_locked:
        raise KernelBug(
            "vm-bug-unlock-page",
            "kernel BUG at unlock_page: VM_BUG_ON_PAGE(!PageLocked(page))",
            calling_function(1),
        )
    page._flags &= ~PG_locked
    page.lock_owner = None
    if page.machine.wakes:
        page.machine.woke()


def clear_page_locked(page: Page) -> None:
    """__clear_page_locked: the lock goes with a page that nobody can find any more."""
    step(_UNLOCK_PAGE, page)
    page._flags &= ~PG_locked
    page.lock_owner = None


def set_page_locked(page: Page) -> None:
    """__set_page_locked: lock a page that nobody can find yet."""
    step(_LOCK_NEW_PAGE, page)
    page._flags |= PG_locked
    page.lock_owner = page.machine.current


def wait_on_page_locked(page: Page) -> None:
    machine = page.machine
    if atomic_context(machine.current):
        might_sleep(machine, "wait_on_page_locked")
    if page._flags & PG_locked:
        machine.interrupt()
    step(_WAIT_ON_PAGE_LOCKED, page)


# ---- references and mappings -----------------------------------------------------------------

_GET_PAGE = Primitive("get_page", "refcount")
_GET_PAGE_UNLESS_ZERO = Primitive("get_page_unless_zero", "refcount", results=1)
_PUT_PAGE_TESTZERO = Primitive("put_page_testzero", "refcount", results=1)
_PAGE_COUNT = Primitive("page_count", "refcount", LOAD, results=1)
_FREEZE = Primitive("page_freeze_refs", "refcount", results=1)
_UNFREEZE = Primitive("page_unfreeze_refs", "refcount", results=1)
_PAGE_MAPCOUNT = Primitive("page_mapcount", "mapcount", LOAD, results=1)
_INC_MAPCOUNT = Primitive("atomic_inc_and_test", "mapcount", results=1)
_DEC_MAPCOUNT = Primitive("atomic_add_negative", "mapcount", results=1)


def get_page(page: Page) -> None:
    step(_GET_PAGE, page)
    if page._refcount <= 0:
        raise KernelBug(
            "vm-bug-get-page",
            "kernel BUG at get_page: VM_BUG_ON_PAGE(atomic_read(&page->_count) <= 0)",
            calling_function(1),
        )
    page._refcount += 1


def get_page_unless_zero(page: Page) -> bool:
    log = step(_GET_PAGE_UNLESS_ZERO, page)
    alive = page._refcount != 0
    page._refcount += alive
    log.append(alive)
    return alive


def put_page_testzero(page: Page) -> bool:
    """Drop a reference; True where it was the last."""
    log = step(_PUT_PAGE_TESTZERO, page)
    if page._refcount == 0:
        raise KernelBug(
            "vm-bug-put-page",
            "kernel BUG at put_page_testzero: VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)",
            calling_function(1),
        )
    page._refcount -= 1
    log.append(page._refcount)
    return page._refcount == 0


def page_count(page: Page) -> int:
    step(_PAGE_COUNT, page).append(page._refcount)
    return page._refcount


def page_freeze_refs(page: Page, count: int) -> bool:
    """`count` -> 0 in one compare-and-exchange; False where the count is another."""
    log = step(_FREEZE, page)
    frozen = page._refcount == count
    if frozen:
        page._refcount = 0
    log.append(frozen)
    return frozen


def page_unfreeze_refs(page: Page, count: int) -> None:
    step(_UNFREEZE, page).append(count)
    if page._refcount != 0 or count == 0:
        raise KernelBug(
            "vm-bug-unfreeze-refs",
            "kernel BUG at page_unfreeze_refs: VM_BUG_ON_PAGE(page_count(page) != 0)",
            calling_function(1),
        )
    page._refcount = count


def page_mapcount(page: Page) -> int:
    step(_PAGE_MAPCOUNT, page).append(page._mapcount)
    return page._mapcount


def page_mapped(page: Page) -> bool:
    step(_PAGE_MAPCOUNT, page).append(page._mapcount)
    return page._mapcount > 0


def atomic_inc_and_test_mapcount(page: Page) -> bool:
    """One mapping more; True where it is the first."""
    log = step(_INC_MAPCOUNT, page)
    page._mapcount += 1
    log.append(page._mapcount)
    return page._mapcount == 1


def atomic_add_negative_mapcount(page: Page) -> bool:
    """One mapping less; True where it was the last."""
    log = step(_DEC_MAPCOUNT, page)
    page._mapcount -= 1
    log.append(page._mapcount)
    return page._mapcount <= 0


def page_private_refs(page: Page) -> int:
    """page_has_private: the references that buffers hold. No step. A page on the balloon's list has
    PG_private too, and never comes here."""
    return 1 if page._flags & PG_private else 0


# ---- balloon pages: known by a mapcount that no mapping gives ----------------------------------

_SET_BALLOON = Primitive("set_page_balloon", "mapcount")
_CLEAR_BALLOON = Primitive("clear_page_balloon", "mapcount")


def PageBalloon(page: Page) -> bool:
    """Is it a balloon's? No step: it changes under the page lock only, and who looks without the
    lock either looks again with it, or may take the page for either."""
    look(page, "mapcount")
    return page._mapcount == PAGE_BALLOON_MAPCOUNT


def SetPageBalloon(page: Page) -> None:
    """__SetPageBalloon. Page locked."""
    step(_SET_BALLOON, page)
    page._mapcount = PAGE_BALLOON_MAPCOUNT


def ClearPageBalloon(page: Page) -> None:
    """__ClearPageBalloon. Page locked."""
    step(_CLEAR_BALLOON, page)
    page._mapcount = 0
