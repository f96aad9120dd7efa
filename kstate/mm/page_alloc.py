"""mm/page_alloc.c: taking and giving back single pages."""

from __future__ import annotations

from kstate.flags import PAGE_FLAG_NAMES, PAGE_FLAGS_CHECK_AT_FREE
from kstate.machine import look
from kstate.pageflags import peek
from kstate.structs import (
    ANON,
    Kernel,
    Page,
    Zone,
    give_free_huge_page,
    give_free_page,
    take_free_page,
)


def alloc_page(k: Kernel, node: int = 0) -> Page | None:
    """A page of `node`, or of the next node that has one, with one reference.

    Source:   mm/page_alloc.c __alloc_pages_nodemask(), get_page_from_freelist(), v4.3.
    Context:  may be called anywhere here; takes no lock of the model.
    Returns:  None where every zone is empty, or by an injected fault `alloc_page`.
    Left out: per-cpu lists, watermarks, reclaim and compaction on the way.
    """
    if k.machine.fault("alloc_page"):
        return None
    for zone in k.zones[node:] + k.zones[:node]:
        page = buffered_rmqueue(k, zone)
        if page is not None:
            return page
    return None


def alloc_page_upto(k: Kernel, limit: int) -> Page | None:
    """A page of a node up to `limit`, as a gfp mask says which zones will do; of any, if it is -1.

    Source:   include/linux/gfp.h gfp_zone(); mm/page_alloc.c get_page_from_freelist(), v4.3.
    Context:  as alloc_page.
    Left out: as alloc_page.
    """
    if limit < 0:
        return alloc_page(k)
    if k.machine.fault("alloc_page"):
        return None
    for zone in k.zones[: limit + 1]:
        page = buffered_rmqueue(k, zone)
        if page is not None:
            return page
    return None


def alloc_page_node(k: Kernel, node: int) -> Page | None:
    """A page of just this node (__GFP_THISNODE), or None.

    Source:   mm/page_alloc.c __alloc_pages_nodemask(), v4.3.
    Context:  as alloc_page.
    Left out: as alloc_page.
    """
    if k.machine.fault("alloc_page"):
        return None
    return buffered_rmqueue(k, k.zones[node])


def buffered_rmqueue(k: Kernel, zone: Zone) -> Page | None:
    """A free page of a zone that nobody has spoiled since it was freed; bad ones are lost.

    Source:   mm/page_alloc.c buffered_rmqueue(), check_new_page(), v4.3.
    Bugs:     reports bad-page-state-new.
    """
    while (page := take_free_page(k, zone)) is not None:
        look(page)
        if (page._flags, page._mapcount, page._mapping, page._mem_cgroup) == (0, 0, None, None):
            return page
        k.machine.report(
            "bad-page-state-new",
            f"BUG: Bad page state pfn:{page.pfn:05x} flags:({'|'.join(page.flag_names())}) "
            "page was free",
            "mm/page_alloc.py:check_new_page",
            page,
        )
    return None


def free_hot_cold_page(k: Kernel, page: Page) -> None:
    """Give a page back whose last reference is gone.

    Source:   mm/page_alloc.c free_hot_cold_page(), free_pages_prepare(), v4.3.
    Context:  refcount 0, off the LRU.
    Left out: per-cpu lists; the page goes straight to the zone.
    """
    if isinstance(page._mapping, ANON):
        page._mapping = None  # nobody has a reference left to see it
    if free_pages_check(k, page):
        return
    k.machine.note("page-freed", page)
    if k.thp is not None and page.pfn in k.thp.units:
        give_free_huge_page(k.thp, page)
        return
    give_free_page(page)


def free_pages_check(k: Kernel, page: Page) -> bool:
    """Is anything left in a page that is being freed? A bad page is reported and withheld.

    Source:   mm/page_alloc.c free_pages_check(), bad_page(), v4.3. The last reason found is told.
    Context:  refcount 0.
    Returns:  True for a bad page.
    Bugs:     reports bad-page-state-*, one id a cause.
    Left out: reserved, slab and compound flags.
    """
    id = reason = ""
    look(page)
    if page._mapcount != 0:
        id, reason = "bad-page-state-mapcount", "nonzero mapcount"
    if page._mapping is not None:
        id, reason = "bad-page-state-mapping", "non-NULL mapping"
    if page._refcount != 0:
        id, reason = "bad-page-state-refcount", "nonzero _count"
    bad = peek(page, PAGE_FLAGS_CHECK_AT_FREE)
    if bad:
        names = [name for bit, name in PAGE_FLAG_NAMES.items() if bad & bit]
        id = f"bad-page-state-{names[0]}" if len(names) == 1 else "bad-page-state-flags"
        reason = f"PAGE_FLAGS_CHECK_AT_FREE flag(s) set, bad because of flags: ({'|'.join(names)})"
    if page._mem_cgroup is not None:
        id, reason = "bad-page-state-memcg", "page still charged to cgroup"
    if not id:
        return False
    k.machine.report(
        id,
        f"BUG: Bad page state pfn:{page.pfn:05x} flags:({'|'.join(page.flag_names())}) "
        f"page dumped because: {reason}",
        "mm/page_alloc.py:free_pages_check",
        page,
    )
    page._mapcount = 0
    return True
