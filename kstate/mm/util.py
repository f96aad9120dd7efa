"""mm/util.c: small things that many need."""

from __future__ import annotations

from kstate.pageflags import PageSwapCache
from kstate.structs import AddressSpace, Kernel, Page


def page_mapping(k: Kernel, page: Page) -> AddressSpace | None:
    """The address space a page is cached in: its file's, or the swap cache; None if in neither.

    Source:   mm/util.c page_mapping(), v4.3.
    Context:  page locked where the answer has to last.
    """
    if PageSwapCache(page):
        return k.swap.space
    mapping = page.mapping
    return mapping if isinstance(mapping, AddressSpace) else None


def page_index(k: Kernel, page: Page, mapping: AddressSpace) -> int:
    """Where in `mapping` a page is. Source: include/linux/mm.h page_index(), v4.3."""
    return page.private if mapping is k.swap.space else page.index
