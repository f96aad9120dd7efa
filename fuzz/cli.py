"""The command line: `kfuzz`, and what its commands share; they stand in the files of COMMANDS.

What each command prints with --json stands in JSON.md."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from fuzz.corpus import program_files, read_program
from fuzz.findings import FINDINGS
from fuzz.prog.prog import ProgError, Program
from fuzz.subject import MachineSubject, NotDeterministic, SetupError
from fuzz.userfile import BadFile, user_program
from fuzz.version import model_hash, package_version
from kstate.machine import ModelError
from kstate.patches import TABLE, SpecError, parse_spec

PROGRESS_EVERY_S = 2.0
COMMANDS = ("cli_campaign", "cli_runs", "cli_explore", "cli_lists", "cli_reports")
OK, SHOWN, USAGE, OURS, INTERRUPTED, TERMINATED = 0, 1, 2, 70, 130, 143
KERNEL_HELP = (
    "Kernel spec: v4.3 or v4.4, then +item or -item. Modelled in this version: "
    + ", ".join(patch.name for patch in TABLE if patch.modelled and patch.behaviour)
    + "; v4.4 means v4.3 with those of the series."
)


Command = TypeVar("Command", bound=Callable[..., Any])


class UserError(click.ClickException):
    """Bad input: one line, exit 2."""

    exit_code = USAGE


def emit(record: dict[str, Any]) -> None:
    """One JSON object on a line of its own."""
    click.echo(json.dumps(record, sort_keys=True))


def version_text() -> str:
    return f"kfuzz {package_version()}, format 1, model {model_hash()}"


def kernel_option(default: str | None = None) -> Callable[[Command], Command]:
    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return parse_spec(value).text
        except SpecError as error:
            raise UserError(str(error)) from None

    return click.option("--kernel", default=default, callback=check, help=KERNEL_HELP)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
file_argument = click.argument("file", type=click.Path(path_type=Path))


def user_subject(name: str) -> MachineSubject:
    """Of FILE.py:function."""
    try:
        return user_program(name)
    except BadFile as error:
        raise UserError(str(error)) from None


@contextmanager
def user_errors(name: str) -> Iterator[None]:
    """What a user's program can do wrong that is no finding."""
    try:
        yield
    except (SetupError, NotDeterministic) as error:
        kind = "not deterministic: " if isinstance(error, NotDeterministic) else ""
        raise UserError(f"{name}: {kind}{error}") from None


def no_kernel(name: str, kernel: str | None) -> None:
    if kernel is not None:
        raise UserError(f"{name}: --kernel is for .prog files: this program has no kernel")


def load(path: Path) -> Program:
    try:
        return read_program(path)
    except ProgError as error:
        raise UserError(error.at(str(path))) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def known_ids(ids: Iterable[str]) -> None:
    """Refuse what is no finding id."""
    for id in ids:
        if id not in FINDINGS:
            raise UserError(f"unknown finding {id!r}; 'kfuzz findings' lists them")


def files_below(paths: Iterable[Path]) -> list[Path]:
    """Every program file named, or below a folder named."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: No such file or directory")
        found = program_files(path)
        if not found:
            raise UserError(f"{path}: no .prog file in it")
        files += found
    return files


def counter(name: str, total: int, unit: str = "runs") -> Callable[[int], None]:
    """Tells how far it is, on stderr, every other second. Ctrl-C ends it here, between two runs:
    raised within a run it would have to unwind every task."""
    last = [time.monotonic()]
    interrupted: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGINT, interrupt)

    def tell(done: int) -> None:
        if interrupted:
            raise KeyboardInterrupt
        if time.monotonic() - last[0] >= PROGRESS_EVERY_S:
            last[0] = time.monotonic()
            click.echo(f"{name}: {done} of {total} {unit}", err=True)

    return tell


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version_text(), message="%(version)s")
def cli() -> None:
    """Find, replay, draw and minimise page-migration races in a model of Linux v4.3 and v4.4."""


def _our_fault(error: BaseException) -> NoReturn:
    """A mistake of ours: say where the traceback is, exit 70."""
    handle, name = tempfile.mkstemp(prefix="kfuzz-traceback-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(version_text() + "\n" + " ".join(sys.argv) + "\n\n")
        traceback.print_exception(error, file=file)
    click.echo(f"kfuzz: a bug of kfuzz itself ({type(error).__name__}): see {name}", err=True)
    raise SystemExit(OURS)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of `kfuzz`."""
    for module in COMMANDS:
        import_module(f"fuzz.{module}")
    try:
        status = cli.main(args=arguments, prog_name="kfuzz", standalone_mode=False)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        click.echo(f"kfuzz: {message}", err=True)
        raise SystemExit(USAGE) from None
    except (KeyboardInterrupt, click.Abort):
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(OK) from None
    except ModelError as error:
        _our_fault(error)
    except Exception as error:
        _our_fault(error)
    raise SystemExit(status if isinstance(status, int) else OK)
