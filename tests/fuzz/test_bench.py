"""What `kfuzz bench` promises beyond its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz import bench
from fuzz.corpus import program_files, races_folder, read_race
from kstate.patches import CLEAN

ROW = "10c.prog"  # few schedules


def test_the_matrix_asks_for_what_the_files_say_and_for_nothing_on_clean() -> None:
    for path in program_files(races_folder()):
        race, jobs = read_race(path), list(bench._matrix_jobs(path))
        said = {kernel: verdict for _, kernel, id, verdict, _ in jobs if id}
        racy = race.needs != "SEQ" and bool(race.finding)
        assert {k for k, verdict in said.items() if verdict == "refuted"} == (
            set(race.shows_on) if racy else set()
        )
        absent = {k for k, verdict in said.items() if verdict == "exhausted"}
        assert absent == (set(race.absent_on) - {CLEAN} if racy else set())
        assert [job[2:4] for job in jobs if job[1] == CLEAN] == [("", "exhausted")]


def test_a_matrix_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path / "matrix.jsonl"
    monkeypatch.setattr(bench, "program_files", lambda _: [races_folder() / ROW])
    whole = list(bench.matrix(keep))
    assert whole[-1] == {"what": "matrix", "as said": len(whole) - 1, "not": 0, "ok": True}
    lines = list(filter(None, keep.read_text().splitlines()))
    assert len(lines) == len(whole) - 1 > 1
    first = json.loads(lines[0])
    keep.write_text(json.dumps({**first, "verdict": "kept"}) + "\n" + lines[1][:20])
    again = list(bench.matrix(keep))
    assert [record.get("verdict") for record in again[:2]] == ["kept", whole[1]["verdict"]]
    assert again[-1] == whole[-1]
