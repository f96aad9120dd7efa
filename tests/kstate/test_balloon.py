"""Balloon pages: inflated, moved, put back, deflated; and no short schedule loses one."""

from __future__ import annotations

import pytest

from fuzz.explore import EXHAUSTED, explore
from fuzz.prog import parse
from fuzz.prog.prog import END, FOR, Program, TurnSpec
from fuzz.run import run
from kstate.flags import EAGAIN, ENOENT, NR_ISOLATED_FILE, PG_private
from kstate.patches import CLEAN

KERNELS = ("v4.3", "v4.3+P06", "v4.3+P07", "v4.4", CLEAN)


def program(init: str, *tasks: str, pool: int = 1) -> Program:
    """Operations are separated by semicolons; one string is one task."""
    lines = ["kfuzz 1", f"kernel: {CLEAN}", f"machine: cpus=2 zones=2 pages=16 pool={pool}"]
    for number, ops in enumerate((init, *tasks)):
        lines.append(f"cpu{number - 1}:" if number else "init:")
        lines += [f"  {op.strip()}" for op in ops.split(";")]
    return parse("\n".join(lines) + "\n")


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_balloon_page_moves_into_a_page_of_the_pool(kernel: str) -> None:
    outcome = run(program("A inflate", "A balloon_migrate"), kernel)
    assert outcome.outcome == "clean"
    assert outcome.returns == ((0,), (0,))
    balloon = outcome.k.balloon
    assert balloon is not None
    assert balloon.pages == outcome.k.pool.members
    assert (balloon.num_pages, balloon.isolated_pages) == (1, 0)
    assert [page._flags for page in balloon.pages] == [PG_private]
    assert len(outcome.k.zones[0].free_pfns) == 8


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_page_comes_back_when_the_balloon_is_flat(kernel: str) -> None:
    text = program("A inflate; A inflate", "A compact node0; A deflate; A deflate; A deflate")
    outcome = run(text, kernel)
    assert outcome.outcome == "clean"
    assert outcome.returns[1] == (2, 0, 0, ENOENT)
    assert len(outcome.k.zones[0].free_pfns) == 8


@pytest.mark.parametrize("kernel", ["v4.3+P07", CLEAN])
def test_a_page_that_cannot_be_moved_is_put_back(kernel: str) -> None:
    """Where the pool's page stays locked throughout: ten passes, then back on the list."""
    text = program("A inflate", "A balloon_migrate", "B pool_lookup pool0")
    moved, refused = set(), set()
    for step in range(1, 30):
        turns = (TurnSpec(1, FOR, "", step), TurnSpec(0, END), TurnSpec(1, END))
        outcome = run(
            Program(text.kernel, text.size, text.init, text.tasks, schedule=turns), kernel
        )
        assert outcome.outcome == "clean"
        balloon = outcome.k.balloon
        assert balloon is not None
        assert len(balloon.pages) == 1
        (refused if outcome.returns[1] == (EAGAIN,) else moved).add(step)
        assert outcome.k.zones[0].stat[NR_ISOLATED_FILE] == 0
    assert moved
    assert refused


RIVALS = ("deflate", "inflate", "balloon_migrate", "compact node0", "pool_lookup pool0")


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("kernel", ["v4.3", CLEAN])
def test_no_schedule_of_a_move_and_a_rival_loses_a_page(kernel: str, rival: str) -> None:
    """But for the BUG of v4.3, which needs the pool page's lock, and races/x-balloon.prog."""
    race = program("A inflate; A inflate", "A balloon_migrate", f"B {rival}", pool=2)
    result = explore(race, kernel, preemptions=1)
    if kernel == "v4.3" and rival == "pool_lookup pool0":
        assert set(result.findings) == {"bug-balloon-newpage-trylock"}
    elif kernel == "v4.3" and rival == "compact node0":
        assert set(result.findings) == {"vm-bug-pagevec-lru-add"}
    else:
        assert result.findings == {}
        assert result.verdict == EXHAUSTED
