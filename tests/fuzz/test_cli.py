"""The command line is a contract: exit statuses, one-line errors, JSON, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.corpus import races_folder
from fuzz.schedulers import SAMPLERS

RACES = races_folder()
LEAK = RACES / "2b-i-munlock.prog"


def kfuzz(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2, one line that begins with kfuzz:, no traceback, nothing on stdout."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.startswith("kfuzz: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("1:1", "ends where")),
        (b"\x7fELF\x02\x01\x01\x00" + bytes(range(256)), ("bad.prog:",)),
        (LEAK.read_bytes()[:300], ("bad.prog",)),
        (b"kfuzz 1\n" + b"# filler\n" * 1_200_000, ("too many",)),
        (b"kfuzz 1\nkernel: v4.3\nmachine: cpus=1\ncpu0:\n  A fly\n", ("5:5", "unknown operation")),
        (b"kfuzz 1\nkernel: v4.3+P77\nmachine: cpus=1\n", ("2:14", "unknown patch")),
        (b"kfuzz 1\nkernel: v4.3+P08\nmachine: cpus=1\n", ("2:9", "P08 requires P07")),
    ],
    ids=["empty", "binary", "truncated", "10MB", "operation", "patch", "unmet"],
)
@pytest.mark.parametrize("command", ["replay", "show", "fmt", "minimize"])
def test_a_bad_file_is_refused_in_one_line(
    command: str, content: bytes, words: tuple[str, ...], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.prog"
    bad.write_bytes(content)
    refused(kfuzz(command, bad), *words)
    assert bad.read_bytes() == content
    assert list(tmp_path.iterdir()) == [bad]


def test_a_missing_and_an_unreadable_file_are_refused(tmp_path: Path) -> None:
    refused(kfuzz("replay", tmp_path / "no.prog"), "no.prog", "No such file")
    refused(kfuzz("show", tmp_path / "no.prog"), "No such file")
    refused(kfuzz("fmt", tmp_path), "Is a directory")
    refused(kfuzz("replay", tmp_path), "no .prog file")


def test_bad_usage_is_refused_in_one_line(tmp_path: Path) -> None:
    refused(kfuzz("frobnicate"), "No such command")
    refused(kfuzz("run", "--kernel", "v9"), "must begin with")
    refused(kfuzz("run", "--runs", "0"))
    refused(kfuzz("run", "--only", "nonsense", "--runs", "1"), "unknown finding")
    refused(kfuzz("sample", LEAK, "--scheduler", "dice", "--runs", "1"), "unknown scheduler")
    refused(kfuzz("replay", LEAK, "--expect", "nonsense"), "unknown finding")
    refused(kfuzz("bench", "nonsense"), "unknown bench")
    refused(kfuzz("bench", "steps", "--salt", "2"), "--salt is for")
    refused(kfuzz("bench", "steps", "--keep", "2"), "--keep is for")
    refused(kfuzz("bench", "matrix", "--keep", LEAK), "it is left alone")
    refused(kfuzz("sample", LEAK, "--scheduler", "urw(events=0)", "--runs", "1"), "events is")
    refused(kfuzz("sample", LEAK, "--scheduler", "all(depth=3)", "--runs", "1"), "unknown")
    refused(kfuzz("pairs", "--kernel", "v9"), "must begin with")
    refused(kfuzz("minimize", LEAK, "--kernel", "v4.4+70feee0e1ef3"), "shows nothing")
    refused(kfuzz("minimize", LEAK, "-o", tmp_path / "no" / "where.prog"), "No such file")


def test_a_crash_folder_that_cannot_be_written_is_refused_before_the_campaign(
    tmp_path: Path,
) -> None:
    """Root may write anywhere, so the folder's place is taken by a file."""
    taken = tmp_path / "crashes"
    taken.write_text("mine")
    refused(kfuzz("run", "--runs", 100, "--crashes", taken), "cannot write there")
    assert taken.read_text() == "mine"


def test_one_bad_file_among_many_is_told_and_the_rest_run(tmp_path: Path) -> None:
    (tmp_path / "a.prog").write_text("nonsense")
    (tmp_path / "b.prog").write_text(LEAK.read_text())
    result = kfuzz("replay", tmp_path)
    assert result.returncode == 2
    assert "a.prog:1:1" in result.stderr
    assert result.stdout.count("ok") == 4


def test_replay_and_its_json_agree() -> None:
    assert kfuzz("replay", RACES).returncode == 0
    result = kfuzz("replay", LEAK, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    first = records[0]
    assert first["kernel"] == "v4.3"
    assert first["outcome"] == "finding"
    assert first["findings"][0]["id"] == "mlocked-page-leak"
    assert first["expected"] is True
    assert first["diverged"] is None
    assert kfuzz("replay", LEAK, "--kernel", "v4.4", "--expect", "deadlock").returncode == 1
    assert kfuzz("replay", LEAK, "--kernel", "v4.3+P03").returncode == 0
    assert "mlock_vma_page" in kfuzz("replay", LEAK, "--trace", "--kernel", "v4.3").stdout


def test_patch_prints_a_diff_of_our_files() -> None:
    text = kfuzz("patch", "P10")
    assert text.returncode == 0
    assert "--- a/kstate/mm/rmap.py\n+++ b/kstate/mm/rmap.py\n@@ -" in text.stdout
    assert "@@ replace_pte()\n" in text.stdout
    record = json.loads(kfuzz("patch", "P10", "--json").stdout)
    assert record["files"][0]["diff"] in text.stdout
    assert record["files"][0]["functions"] == ["replace_pte"]
    words = kfuzz("patch", "P01")
    assert words.returncode == 0
    assert "text only" in words.stdout
    refused(kfuzz("patch", "P13"), "unknown patch")
    refused(kfuzz("patch", "P08", "--kernel", "v4.3"), "requires P07")


def test_locks_says_what_is_taken_under_what() -> None:
    asked = ("locks", LEAK, "--under", "ptl", "--within", "mlock_vma_page")
    text = kfuzz(*asked)
    assert text.returncode == 0
    assert "  ptl > lru_lock, irqs off: in documented order\n" in text.stdout
    assert "no cycle" in text.stdout
    record = json.loads(kfuzz(*asked, "--json").stdout)
    assert {taking["taken"] for taking in record["taken"]} == {"lru_lock"}
    assert record["violations"] == []
    refused(kfuzz("locks", LEAK, "--under", "ptll"), "'ptll'", "known:")
    refused(kfuzz("locks", LEAK, "--within", "mlock_vma_pagee"), "mlock_vma_pagee")


@pytest.mark.parametrize("command", ["races", "findings", "points", "ops"])
def test_lists_are_text_and_json(command: str) -> None:
    text, records = kfuzz(command), kfuzz(command, "--json")
    assert text.returncode == records.returncode == 0
    assert text.stdout.strip()
    for line in records.stdout.splitlines():
        assert isinstance(json.loads(line), dict)


def test_every_command_has_help_with_an_example() -> None:
    names = [
        "run", "replay", "show", "sample", "minimize", "fmt", "races", "findings", "points", "ops",
        "bench", "patch", "locks", "bisect", "pairs",
    ]  # fmt: skip
    for name in names:
        result = kfuzz(name, "--help")
        assert result.returncode == 0
        assert "Example:" in result.stdout
    assert "model" in kfuzz("--version").stdout


def test_show_draws_a_column_a_cpu() -> None:
    text = kfuzz("show", LEAK).stdout
    assert "cpu0" in text
    assert "mlock_vma_page()" in text
    assert "// mlocked-page-leak" in text
    assert "left before test_and_set_bit(flags.mlocked)" in text


def test_sample_all_compares_every_sampler_on_every_finding() -> None:
    arguments = ("sample", LEAK, "--scheduler", "all", "--runs", 70)
    result = kfuzz(*arguments, "--json")
    assert result.returncode == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    names = [record["scheduler"].partition("(")[0] for record in records]
    assert names == [name.partition("(")[0] for name in SAMPLERS]
    for record in records:
        assert set(record["intervals"]) == set(record["findings"]) == set(record["expected_runs"])
        low, high = record["interval"]
        assert low <= record["hits"] / 70 <= high
        assert high - low < 0.25
        for id, count in record["findings"].items():
            assert record["expected_runs"][id] == 70 / count
    text = kfuzz(*arguments)
    assert text.returncode == 1
    ids = {id for record in records for id in record["findings"]}
    assert "nr-mlock-mismatch" in ids
    for id in ids:
        block = text.stdout.partition(f"\n{id}\n")[2].splitlines()[: len(SAMPLERS)]
        assert [line.split("  ")[1] for line in block] == list(SAMPLERS)
    assert (
        kfuzz("sample", LEAK, "--scheduler", "pos", "--runs", 2, "--kernel", "v4.4").returncode == 0
    )


def test_sample_tells_progress_on_stderr_and_what_is_complete_on_ctrl_c() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "sample", str(LEAK), "--scheduler", "random_walk",
         "--runs", "10000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert "of 10000000 runs" in process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert out == ""


def test_pairs_lists_measured_conflicts_the_rarest_first_and_always_the_same() -> None:
    result = kfuzz("pairs", "--runs", 60, "--json")
    assert result.returncode == 0
    records = [json.loads(line) for line in result.stdout.splitlines()]
    pairs = [record for record in records if record["event"] == "pair"]
    shares = [record["conflicting"] / record["states"] for record in pairs]
    assert shares == sorted(shares)
    assert all(len(record["points"]) == len(record["operations"]) == 2 for record in pairs)
    assert {record["operation"] for record in records if record["event"] == "operation"} >= {
        "munlock",
        "exit",
    }
    assert kfuzz("pairs", "--runs", 60, "--json").stdout == result.stdout
    text = kfuzz("pairs", "--runs", 60, "--rows", 2).stdout.splitlines()
    assert len(text) == 2 + 2 * 3


def test_minimize_and_fmt_write_what_replays(tmp_path: Path) -> None:
    small = tmp_path / "small.prog"
    assert kfuzz("minimize", LEAK, "-o", small).returncode == 0
    assert kfuzz("replay", small).returncode == 0
    before = small.read_text()
    assert kfuzz("fmt", "-w", small).returncode == 0
    assert small.read_text() == before


def test_run_tells_json_and_keeps_crashes_and_corpus(tmp_path: Path) -> None:
    crashes, corpus = tmp_path / "crashes", tmp_path / "corpus"
    arguments = ("run", "--runs", 4000, "--seed", 3, "--crashes", crashes, "--corpus", corpus)
    result = kfuzz(*arguments, "--json")
    assert result.returncode == 1
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[-1]["event"] == "summary"
    assert {event["event"] for event in events} >= {"finding", "summary"}
    strategies = events[-1]["strategies"]
    assert {"growing", "measuring", "meeting", "pos", "surw"} <= set(strategies)
    assert all(mine["steps"] > 0 for mine in strategies.values())
    assert sum(mine["news"] for mine in strategies.values()) == events[-1]["features"]
    assert sorted(path.name for path in crashes.iterdir()) == events[-1]["crashes"]
    assert kfuzz("replay", crashes).returncode == 0
    (corpus / "bad.prog").write_text("nonsense")
    again = kfuzz(*arguments)
    assert again.returncode == 2
    assert "bad.prog:1:1" in again.stderr


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_campaign_and_loses_no_finding(
    number: int, status: int, jobs: int, tmp_path: Path
) -> None:
    crashes = tmp_path / "crashes"
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "run", "--time", "60", "--json", "--jobs", str(jobs),
         "--crashes", str(crashes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "finding":
            seen.append(event)
            break
    time.sleep(0.3)
    os.kill(process.pid, number)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    seen += [event for event in map(json.loads, rest.splitlines()) if event["event"] == "finding"]
    ids = {event["id"] for event in seen}
    kept = {path.name.rsplit("-", 1)[0] for path in crashes.iterdir()}
    assert ids <= kept
    assert kfuzz("replay", crashes).returncode == 0


def test_a_worker_that_is_killed_is_told_of_and_the_others_go_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "run", "--time", "8", "--json", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # a status: both are at work, or one and the other about to begin
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    rest, errors = process.communicate(timeout=30)
    summary = json.loads(rest.splitlines()[-1])
    assert process.returncode == (1 if summary["counts"] else 0), errors
    assert "a worker was killed" in errors
    assert "(seed 0/0)" in errors
    assert "Traceback" not in errors
    assert summary["elapsed_s"] > 6


def test_a_mistake_of_ours_is_exit_70_with_a_saved_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fuzz import cli, cli_runs
    from kstate.machine import ModelError

    def broken(*_: object, **__: object) -> None:
        raise ModelError("planted")

    monkeypatch.setattr(cli_runs, "diagram", broken)
    with pytest.raises(SystemExit) as caught:
        cli.main(["show", str(LEAK)])
    assert caught.value.code == 70
    told = capsys.readouterr().err
    assert "a bug of kfuzz itself" in told
    saved = Path(told.split()[-1])
    assert "planted" in saved.read_text()
    saved.unlink()
