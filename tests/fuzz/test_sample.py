"""Statistics of samples: intervals that hold, and how hard a finding is to hit."""

from __future__ import annotations

from math import comb, sqrt
from pathlib import Path

import pytest

from fuzz import bench, crash
from fuzz.corpus import program_files, races_folder, read_program
from fuzz.run import run
from fuzz.sample import how_hard, in_words, table, wilson
from fuzz.schedulers import SAMPLERS

RACES = races_folder()


def test_wilson_gives_the_published_values() -> None:
    """Of 0, 5 and 10 hits in 10 runs, and 1 in 100."""
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(5, 10) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    assert wilson(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    assert wilson(1, 100) == (pytest.approx(0.0018, abs=1e-4), pytest.approx(0.0545, abs=1e-4))


def test_wilson_intervals_cover_small_probabilities_and_the_textbook_ones_do_not() -> None:
    """Exact coverage, summed over the binomial distribution of 100 runs."""
    runs = 100

    def textbook(hits: int) -> tuple[float, float]:
        share = hits / runs
        spread = 1.96 * sqrt(share * (1 - share) / runs)
        return share - spread, share + spread

    for p in (0.01, 0.02, 0.05, 0.1, 0.3, 0.5):
        weights = [comb(runs, n) * p**n * (1 - p) ** (runs - n) for n in range(runs + 1)]
        held = {
            method: sum(
                weight
                for hits, weight in enumerate(weights)
                if method(hits)[0] <= p <= method(hits)[1]
            )
            for method in (lambda hits: wilson(hits, runs), textbook)
        }
        ours, theirs = held.values()
        assert 0.91 < ours < 0.99
        if p == 0.01:
            assert theirs < 0.64


def test_no_hit_is_told_as_a_bound_never_as_a_pass() -> None:
    assert in_words(0, 1000) == "0 of 1000, < 0.38 %, a hit in > 261 runs"
    assert in_words(3, 100) == "3 of 100, 3.00 % (1.03 .. 8.45), a hit in 33 runs (12 .. 98)"


def test_how_hard_a_finding_is_to_hit_is_the_same_every_time_and_stops_when_asked() -> None:
    program = read_program(RACES / "7a.prog")
    rows = how_hard(program, "bug-newpage-trylock", runs_count=60)
    assert [name for name, _, _ in rows] == list(SAMPLERS)
    assert how_hard(program, "bug-newpage-trylock", runs_count=60) == rows
    hits = {name: count for name, count, _ in rows}
    assert hits["surw"] > 0
    assert hits["surw"] < 60
    assert len(table(rows)) == len(SAMPLERS)
    assert how_hard(program, "deadlock", runs_count=2) == [(name, 0, 2) for name in SAMPLERS]
    asked: list[int] = []
    assert how_hard(program, "deadlock", runs_count=2, stop=lambda: bool(asked.append(1))) != []
    assert how_hard(program, "deadlock", runs_count=2, stop=lambda: True) == []
    assert len(asked) == len(SAMPLERS)


def test_a_crash_report_says_how_hard_it_is_to_hit(tmp_path: Path) -> None:
    program = read_program(RACES / "7a.prog")
    outcome = run(program)
    id = "bug-newpage-trylock"
    folder = crash.save(tmp_path, crash.reproducer(program, outcome, id), outcome, id).folder
    before = (folder / "report.txt").read_text()
    assert "how hard" not in before
    crash.add_odds(folder, id, stop=lambda: True)
    assert (folder / "report.txt").read_text() == before
    crash.add_odds(folder, id, stop=lambda: False)
    report = (folder / "report.txt").read_text()
    lines = report.partition("how hard to hit")[2].splitlines()[1:]
    assert [line.split("  ")[1] for line in lines[: len(SAMPLERS)]] == list(SAMPLERS)
    assert [line for line in before.splitlines() if line not in report.splitlines()] == []
    crash.add_odds(folder, id, stop=lambda: False)
    assert (folder / "report.txt").read_text() == report
    assert sorted(path.name for path in folder.iterdir()) == ["report.txt", "repro.prog"]


def test_the_bench_takes_every_race_file_whose_default_run_does_not_show_it() -> None:
    racy = {path.stem: bench._racy(path) for path in program_files(RACES)}
    assert racy["7a"] == ("v4.3", "bug-newpage-trylock")
    assert racy["2b-i-munlock"] == ("v4.3", "mlocked-page-leak")
    for path in program_files(RACES):
        program = read_program(path)
        if all(expect.absent for expect in program.expects):
            assert racy[path.stem] is None


def test_the_bench_gives_medians_and_says_where_it_gave_up() -> None:
    """SURW hits 7a with p about 0.2: of 20 seeds, more than half hit within 30 runs but with
    p < 1e-12. One delay cannot show it within 3 runs for most seeds."""
    job = (str(RACES / "7a.prog"), "v4.3", "bug-newpage-trylock")
    median = bench._runs_to_hit((*job, "surw", 30))
    assert isinstance(median, float)
    assert 1 <= median <= 12
    assert bench._runs_to_hit((*job, "delay(delays=1)", 3)) == "> 3"
