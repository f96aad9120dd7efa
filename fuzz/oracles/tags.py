"""Dirty tags. Patches: P12."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles.base import Snapshot
from kstate.machine import Report
from kstate.structs import TAG_DIRTY, Kernel


class UnaccountedMappingHasNoDirtyTag:
    """A mapping whose dirty pages are not counted has no page tagged dirty.

    Invariant:   kernel-reference 12d. Whoever tags one goes by account_page_dirtied(), whose
                 tracepoint then takes the name of a device that is not there (CVE-2016-3070).
    Not checked: mid-run; a tag that went with its page.
    """

    id = "dirty-tag-on-unaccounted-mapping"

    def attach(self, k: Kernel) -> None:
        pass

    def quiescent(self, state: Snapshot) -> Iterator[Report]:
        for mapping in (*state.k.files.values(), state.k.swap.space):
            if not mapping.accounts_dirty and mapping._tags[TAG_DIRTY]:
                yield Report(
                    self.id,
                    f"pages {sorted(mapping._tags[TAG_DIRTY])} of {mapping.label()} are tagged "
                    "dirty, though it never accounts dirty pages",
                    "oracle",
                    (mapping.label(),),
                )
