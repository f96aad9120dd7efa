"""Every race file shows what it says, on the kernels it says; and enumeration finds it too."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.claims import claims_of
from fuzz.corpus import program_files, races_folder, read_program, read_race
from fuzz.explore import EXHAUSTED, REFUTED, explore
from fuzz.findings import FINDINGS
from fuzz.prog import parse
from fuzz.replay import replay_file
from fuzz.run import run
from kstate.patches import CLEAN

FILES = program_files(races_folder())
NAMES = [path.stem for path in FILES]
KINDS = {"finding", "absent", "trace", "count"}
# The race catalogue, less what other files of the model are still to bring.
ROWS = """1/12 2a-M 2a-R 2b-i/munlock 2b-i/munlock-x1 2b-i/reclaim 2b-iii/anon 2b-iii/file 2c
2c/reclaim 2d 2d/munmap 2e 2f 2g 2h 2i/mm-users 2i/trylock-under-ptl 2j 2k 3a 3b 3c 3d
3e 3f e6c509f85455 6-hugetlb 6a 6b 6c 7a 7a-balloon 7a-hugetlb 7b 7c
8a 8b/zap 8b/fork 8c 9a 10a 10b 10c 10d 10e 11a 11b 11c 11d
X4 X4/bad-page X-ksm-append X-ksm-truncate X-thp-cow X-thp-munlock X-thp-undo
X-vma-merge X-clear-refs X-ksm-vma X-ksm-referenced X-balloon-enqueue
X-memcg-stat X-mprotect-soft-dirty 12a 12b 12c 12d 12e 12f X1 X7a X7b X7c X8 X9
X-balloon
0610c25daa3e
4-lrucare 4-charges/migration 4-charges/splice 4-charges/shmem
4-move-account/migration 4-move-account/replacement
"""


def test_every_row_has_its_file() -> None:
    races = [read_race(path) for path in FILES]
    assert {race.id for race in races} >= set(ROWS.split())
    assert len({race.id for race in races}) == len(races)
    assert {race.kind for race in races} == KINDS
    assert {race.needs for race in races} == {"SEQ", "LOCKED", "RACE"}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_race_file_shows_what_it_expects_on_every_kernel_it_names(path: Path) -> None:
    program = read_program(path)
    results = list(replay_file(program))
    race = read_race(path)
    for result in results:
        assert result.expected is True, (result.outcome.kernel, result.unmet)
        shown = result.outcome.kernel in race.shows_on
        assert result.outcome.diverged is None or not shown, result.outcome.kernel
    if race.kind == "finding":
        assert len(results) >= 2
        assert race.finding in FINDINGS
        assert race.shows_on
        assert race.absent_on
    elif race.kind == "absent":
        assert not race.finding
        assert race.absent_on
    else:
        assert list(claims_of(program))


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_race_file_replays_a_hundred_times_to_the_same_trace(path: Path) -> None:
    program = read_program(path)
    assert len({run(program).trace_hash for _ in range(100)}) == 1


def test_a_claim_that_is_not_so_is_noticed() -> None:
    text = (races_folder() / "2j.prog").read_text()
    wrong = parse(text.replace("(ptl) = 3", "(ptl) = 2"))
    assert [result.expected for result in replay_file(wrong, "v4.3")] == [False]
    text = (races_folder() / "8c.prog").read_text()
    wrong = parse(text.replace("order v4.3:", "order v4.4:"))
    assert [result.expected for result in replay_file(wrong, "v4.4")] == [False]


RACY = [path for path in FILES if read_race(path).needs != "SEQ" and read_race(path).finding]


ABSENT = [path for path in FILES if read_race(path).kind == "absent"]


@pytest.mark.parametrize("path", ABSENT, ids=[path.stem for path in ABSENT])
def test_enumeration_finds_nothing_of_what_is_said_to_be_absent(path: Path) -> None:
    program = read_program(path)
    for expect in program.expects:
        found = explore(program, expect.kernel, preemptions=1, only=expect.id or None)
        assert found.verdict == EXHAUSTED, (expect.kernel, expect.id)


@pytest.mark.parametrize("path", RACY, ids=[path.stem for path in RACY])
def test_enumeration_from_no_schedule_finds_the_race(path: Path) -> None:
    """With as many preemptions as it says, on every kernel it shows on; not on the others."""
    race, program = read_race(path), read_program(path)
    most = race.preemptions
    for kernel in race.shows_on:
        result = explore(program, kernel, preemptions=most, only=race.finding, stop_at_first=True)
        assert result.verdict == REFUTED, kernel
    for kernel in race.absent_on:
        result = explore(program, kernel, preemptions=most, only=race.finding)
        assert result.verdict == EXHAUSTED, kernel


SMALL = ("2c", "2c-reclaim", "2h", "2i-trylock", "7a", "7b", "7c", "x7a", "x7b")


@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_races_under_all_schedules(name: str) -> None:
    path = races_folder() / f"{name}.prog"
    race, program = read_race(path), read_program(path)
    for kernel in race.shows_on:
        assert explore(program, kernel, preemptions=None, only=race.finding).verdict == REFUTED
    for kernel in race.absent_on:
        assert explore(program, kernel, preemptions=None, only=race.finding).verdict == EXHAUSTED
    assert explore(program, CLEAN, preemptions=None).verdict == EXHAUSTED
