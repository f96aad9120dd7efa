"""Every race file shows what it says, on the kernels it says; and enumeration finds it too."""

from __future__ import annotations

import pytest

from fuzz.corpus import program_files, races_folder, read_program, read_race
from fuzz.explore import REFUTED, explore
from fuzz.findings import FINDINGS
from fuzz.prog.prog import Program
from fuzz.replay import replay_file
from fuzz.run import run

FILES = program_files(races_folder())
NAMES = [path.stem for path in FILES]
ROWS = {"2b-i/munlock", "2b-i/reclaim", "2c", "2d", "2f", "3a", "3d", "7a", "X1"}


def test_every_row_of_the_slice_has_its_file() -> None:
    assert {read_race(path).id for path in FILES} >= ROWS


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_race_file_shows_what_it_expects_on_every_kernel_it_names(path) -> None:  # type: ignore[no-untyped-def]
    program = read_program(path)
    results = list(replay_file(program))
    assert len(results) >= 2
    for result in results:
        assert result.expected is True, (result.outcome.kernel, result.unmet)
        assert result.outcome.diverged is None, result.outcome.kernel
    race = read_race(path)
    assert race.finding in FINDINGS
    assert race.shows_on
    assert race.absent_on


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_race_file_replays_a_hundred_times_to_the_same_trace(path) -> None:  # type: ignore[no-untyped-def]
    program = read_program(path)
    assert len({run(program).trace_hash for _ in range(100)}) == 1


def row(name: str) -> Program:
    return read_program(races_folder() / f"{name}.prog")


@pytest.mark.parametrize(
    ("name", "kernel", "preemptions"),
    [
        ("2b-i-munlock", "v4.3", 1),
        ("2b-i-munlock-x1", "v4.4", 1),
        ("2c", "v4.3", 1),
        ("2d", "v4.3", 0),
        ("2f", "v4.3", 1),
        ("3a", "v4.3", 0),
        ("3d", "v4.3", 1),
        ("3d", "v4.4", 1),
        ("7a", "v4.3", 1),
        ("x1", "v4.4", 1),
    ],
)
def test_enumeration_from_no_schedule_finds_the_race(
    name: str, kernel: str, preemptions: int
) -> None:
    wanted = read_race(races_folder() / f"{name}.prog").finding
    result = explore(row(name), kernel, preemptions=preemptions, only=wanted, stop_at_first=True)
    assert result.verdict == REFUTED
    assert wanted in result.findings
