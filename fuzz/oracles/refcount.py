"""Conservation of references and mappings."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.flags import NR_ANON_PAGES, NR_FILE_MAPPED, PG_head
from kstate.machine import Report
from kstate.structs import ANON, Kernel, Page


class RefcountIsAccountedFor:
    """References = present ptes + 1 if in a page cache, or free in the pool, or in an aio ring, or
    in the balloon, + 1 if it has buffers.

    Invariant:   kernel-reference I7, when nothing is pinned any more.
    Not checked: mid-run, where pins and isolations come and go.
    """

    id = "refcount-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        k = state.k
        files = [*k.files.values(), k.swap.space]
        if k.hugetlb is not None:
            files.append(k.hugetlb.file)
        cached = {
            page.pfn
            for mapping in files
            for page in mapping._page_tree.values()
            if isinstance(page, Page)
        }
        pooled = {page.pfn for page in k.pool.free}
        for mapping in k.files.values():
            if mapping.ring is not None:
                pooled |= {page.pfn for page in mapping.ring.pages}
        if k.balloon is not None:
            pooled |= {page.pfn for page in k.balloon.pages}
        if k.hugetlb is not None:
            pooled |= {page.pfn for page in k.hugetlb.pool.free}
        for page in k.pages.values():
            expected = (
                len(state.mappings.get(page.pfn, ()))
                + (page.pfn in cached)
                + (page.pfn in pooled)
                + (page.buffers is not None)
            )
            if page._refcount != expected:
                yield Report(
                    self.id,
                    f"{page.label()} has {page._refcount} references, {expected} are accounted for",
                    "oracle",
                    (page.label(),),
                )


class MapcountIsNumberOfPtes:
    """mapcount = present ptes that map the page; NR_ANON_PAGES and NR_FILE_MAPPED follow it. The
    mapcount of a balloon's page is a mark, and huge pages are not counted.

    Invariant:   kernel-reference I6.
    Not checked: mid-run, under the ptl of a pte that is being changed.
    """

    id = "mapcount-mismatch"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        k = state.k
        anon = dict.fromkeys((zone.node for zone in k.zones), 0)
        file = dict(anon)
        for page, text in wrong_mapcounts(state):
            yield Report(self.id, text, "oracle", (page.label(),))
        for page in k.pages.values():
            if page._mapcount > 0 and not page._flags & PG_head:
                of = anon if isinstance(page._mapping, ANON) else file
                of[page.zone.node] += page.nr_pages
        for zone in k.zones:
            for name, counter, counted in (
                ("NR_ANON_PAGES", NR_ANON_PAGES, anon),
                ("NR_FILE_MAPPED", NR_FILE_MAPPED, file),
            ):
                if zone.stat[counter] != counted[zone.node]:
                    yield Report(
                        self.id,
                        f"{name} of {zone.label()} is {zone.stat[counter]}, "
                        f"{counted[zone.node]} pages are so mapped",
                        "oracle",
                        (zone.label(),),
                    )


def wrong_mapcounts(state: Snapshot) -> Iterator[tuple[Page, str]]:
    """Pages whose mapcount is not the number of ptes that map them, and by how much."""
    balloon = state.k.balloon
    for page in state.k.pages.values():
        ptes = len(state.mappings.get(page.pfn, ()))
        if page._mapcount != ptes and not (balloon is not None and page in balloon.pages):
            yield page, f"{page.label()} has mapcount {page._mapcount}, {ptes} ptes map it"
