"""fs/drop_caches.c: give up every cached page that can be given up."""

from __future__ import annotations

from kstate.mm import truncate
from kstate.structs import Kernel


def drop_pagecache(k: Kernel) -> None:
    """1 written to /proc/sys/vm/drop_caches.

    Source:   fs/drop_caches.c drop_caches_sysctl_handler(), drop_pagecache_sb(), v4.3.
    Context:  sleeps. The file of an aio ring is on no list of inodes, and one without pages is
              passed over: so its shadows stay.
    """
    for mapping in list(k.files.values()):
        if mapping.fs == "aio" or mapping.nrpages == 0:
            continue
        truncate.invalidate_mapping_pages(k, mapping)
