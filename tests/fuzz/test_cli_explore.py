"""kfuzz explore: verdicts, exit statuses, JSON, programs of one's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fuzz
from fuzz.corpus import races_folder

RACES = races_folder()
COMMAND = [sys.executable, "-m", "fuzz", "explore"]


def explore(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_verdicts_and_exit_statuses() -> None:
    shown = explore(RACES / "7a.prog", "--json")
    record = json.loads(shown.stdout)
    assert shown.returncode == 1
    assert record["verdict"] == "refuted"
    bound = {"preemptions": None, "faults": 0, "steps": 20000, "only": None, "given": []}
    assert record["bound"] == bound
    assert record["schedules"] == record["classes"] == 26
    assert [finding["id"] for finding in record["findings"]] == ["bug-newpage-trylock"]
    assert record["findings"][0]["turns"]
    absent = explore(RACES / "7a.prog", "--kernel", "v4.4")
    assert absent.returncode == 0
    assert absent.stdout.startswith("EXHAUSTED (all schedules, faults 0) on v4.4")
    bounded = explore(RACES / "7a.prog", "--kernel", "v4.4", "--preemptions", 1, "--json")
    assert bounded.returncode == 0
    assert json.loads(bounded.stdout)["bound"]["preemptions"] == 1
    given_up = explore(RACES / "2e.prog", "--kernel", "v4.4", "--time", 1, "--json")
    assert given_up.returncode == 3
    assert 0 <= json.loads(given_up.stdout)["estimated_share"] < 1


def test_sigint_tells_what_there_is_and_exits_130() -> None:
    process = subprocess.Popen(
        [*COMMAND, str(RACES / "2e.prog"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # it is under way
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["schedules"] > 0


def test_the_example_of_machine_md(tmp_path: Path) -> None:
    text = (Path(fuzz.__file__).parent / "MACHINE.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.S)
    assert example is not None
    file = tmp_path / "counter.py"
    file.write_text(example[1])
    lost = explore(f"{file}:lost_update")
    assert lost.returncode == 1
    assert "AssertionError: an increment is lost (counter.py:" in lost.stdout
    assert explore(f"{file}:no_lost_update").returncode == 0


def kfuzz(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND[:-1], *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_program_of_ones_own_is_sampled_minimised_and_drawn(tmp_path: Path) -> None:
    example = re.search(
        r"```python\n(.*?)```", (Path(fuzz.__file__).parent / "MACHINE.md").read_text(), re.S
    )
    assert example is not None
    file = tmp_path / "counter.py"
    file.write_text(example[1])
    sampled = kfuzz("sample", f"{file}:lost_update", "--scheduler", "all", "--runs", 50, "--json")
    lines = [json.loads(line) for line in sampled.stdout.splitlines()]
    assert sampled.returncode == 1
    assert len(lines) == 9
    assert any(line["findings"].get("assertion") for line in lines)
    clean = kfuzz("sample", f"{file}:no_lost_update", "--scheduler", "pos", "--runs", 50)
    assert clean.returncode == 0
    turns = tmp_path / "turns"
    small = kfuzz("minimize", f"{file}:lost_update", "-o", turns)
    assert small.returncode == 0
    assert turns.read_text() == (
        "schedule:\n  cpu0 until counter.py:increment store(count) #1\n  cpu1 to end\n"
    )
    again = kfuzz("minimize", f"{file}:lost_update", "--schedule", turns)
    assert again.stdout == turns.read_text()
    drawn = kfuzz("show", f"{file}:lost_update", "--schedule", turns)
    assert drawn.stdout == kfuzz("show", f"{file}:lost_update").stdout
    assert "--- left before store(count) ---" in drawn.stdout
    assert "// assertion: AssertionError: an increment is lost" in drawn.stdout
    assert "// nothing found" in kfuzz("show", f"{file}:no_lost_update").stdout


def test_bad_turns_and_options_for_a_program_of_ones_own(tmp_path: Path) -> None:
    file, turns = tmp_path / "mine.py", tmp_path / "turns"
    file.write_text("def f(m):\n    return lambda: None\n")
    turns.write_text("schedule:\n  cpu0 sideways\n")
    for arguments in (
        ("show", f"{file}:f", "--schedule", turns),
        ("show", f"{file}:f", "--schedule", tmp_path / "none"),
        ("show", f"{file}:f", "--kernel", "v4.3"),
        ("show", RACES / "7a.prog", "--schedule", turns),
        ("minimize", f"{file}:f"),
        ("minimize", f"{file}:g"),
        ("sample", f"{file}:f", "--scheduler", "none", "--runs", 1),
    ):
        result = kfuzz(*arguments)
        assert result.returncode == 2, arguments
        assert result.stderr.startswith("kfuzz: ")
        assert result.stderr.count("\n") == 1


def test_bad_input_is_refused_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def none(m):\n    return None\n\ndef raises(m):\n    return m.nothing\n")
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    for file in (
        f"{bad}:none", f"{bad}:raises", f"{bad}:absent", bad, f"{broken}:f", "no.py:f", "no.prog",
    ):  # fmt: skip
        result = explore(file)
        assert result.returncode == 2, result
        assert result.stderr.startswith("kfuzz: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
