"""How much reclaim scans."""

from __future__ import annotations

from fuzz.schedulers import Default
from kstate import MachineSize, boot, parse_spec
from kstate.flags import LRU_INACTIVE_ANON, LRU_INACTIVE_FILE
from kstate.machine import Machine
from kstate.mm import vmscan
from kstate.patches import CLEAN


def test_a_batch_is_forced_only_where_nothing_is_left_after_the_lists_were_weighed() -> None:
    """One file page, two anonymous ones, priority 1: anonymous pages are left out, so that the
    file page, which half of one does not reach, is scanned after all."""
    k = boot(Machine(Default()), parse_spec(CLEAN).toggles, MachineSize(1, 1, 16, 0), ("A",))
    zone = k.zones[0]
    zone.stat[LRU_INACTIVE_ANON], zone.stat[LRU_INACTIVE_FILE] = 2, 1
    assert vmscan.get_scan_count(zone, 1) == [0, 0, 1, 0]
    zone.stat[LRU_INACTIVE_FILE] = 4
    assert vmscan.get_scan_count(zone, 1) == [0, 0, 2, 0]
    assert vmscan.get_scan_count(zone, 0) == [2, 0, 4, 0]
