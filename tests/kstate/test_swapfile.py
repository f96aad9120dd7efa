"""Swap counts: fork finds one full, lets go of the ptls and tries again."""

from __future__ import annotations

from fuzz.prog import parse
from fuzz.run import Outcome, run
from kstate.patches import CLEAN
from kstate.structs import SWAP

SWAPPED = (
    f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=1 pages=16 pool=0\ninit:\n"
    "  A map 0 anon\n  A write 0.0\n  A write 0.1\n  A drain\n  A age node0\n  A swapout node0\n"
    "  A swapout node0\ncpu0:\n  A fork B\n"
)


def test_a_fork_that_finds_a_swap_count_full_goes_on_where_it_stopped() -> None:
    plain = run(parse(SWAPPED))
    full = run(parse(SWAPPED + "faults:\n  cpu0 swap_duplicate #2\n"))
    for outcome in (plain, full):
        assert outcome.findings == ()
        assert outcome.returns[1] == (0,)
        ptes = outcome.k.processes["B"].ptes
        assert [ptes[address]._value.kind for address in (0, 1)] == [SWAP, SWAP]
        assert sorted(outcome.k.swap._swap_map.values()) == [2, 2]
    assert ptls_taken(full) == ptls_taken(plain) + 2


def ptls_taken(outcome: Outcome) -> int:
    return sum(
        event.point.function == "copy_page_range" and event.point.primitive.name == "spin_lock"
        for event in outcome.k.machine.events(0)
    )
