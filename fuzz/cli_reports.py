"""Commands about patches and about whole runs: `patch`. See cli.py for the rest."""

from __future__ import annotations

from typing import Any

import click

from fuzz.cli import OK, UserError, cli, emit, json_option, kernel_option
from kstate.patches import SpecError
from kstate.patchview import PatchView, view


@cli.command("patch")
@click.argument("name")
@kernel_option()
@json_option
def patch_command(name: str, kernel: str | None, as_json: bool) -> int:
    """Print a patch as a diff of our own files, its toggles folded away.

    A patch of the series is shown on top of those before it; a commit, mutant, alternative or fix
    on v4.4, or on v4.3 where it is not there on v4.4; with --kernel, on that kernel.

    \b
    Example:  kfuzz patch P10
    """
    try:
        seen = view(name, kernel)
    except SpecError as error:
        raise UserError(str(error)) from None
    if as_json:
        emit(_patch(seen))
    else:
        click.echo(str(seen), nl=False)
    return OK


def _patch(seen: PatchView) -> dict[str, Any]:
    patch = seen.patch
    return {
        "patch": patch.name,
        "subject": patch.subject,
        "mail": patch.mail,
        "behaviour": patch.behaviour,
        "before": None if seen.before is None else seen.before.text,
        "after": None if seen.after is None else seen.after.text,
        "note": seen.note,
        "files": [
            {"file": file.file, "functions": list(file.functions), "diff": file.diff}
            for file in seen.files
        ],
    }
