"""The command line: thin commands by subject, which import heavy libraries when they need them."""

import errno
import os
import sys

import typer

from headwater.cli.batch import commands as batch_commands
from headwater.cli.features import commands as features_commands
from headwater.cli.operator import commands as operator_commands
from headwater.cli.records import commands as records_commands
from headwater.cli.screen import print_json, warnings_shown
from headwater.cli.serving import commands as serving_commands
from headwater.cli.stack import commands as stack_commands
from headwater.cli.updates import commands as updates_commands
from headwater.cli.upkeep import commands as upkeep_commands
from headwater.cli.versions import commands as versions_commands
from headwater.infra.offline import quiet
from headwater.spec.errors import HeadwaterError, StorageError

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="headwater",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Keep a production model learning: log and wait, retrain, fine-tune, trace, rebuild.\n\n"
    "A PIPELINE is a reference to its declaration, module:attribute or "
    "path.py:attribute; commands that need only its records take its name as well.\n\n"
    "To begin: import history, train on it, list the "
    "versions; up and deploy put it on a schedule.",
)
for _commands in (
    records_commands,
    updates_commands,
    versions_commands,
    stack_commands,
    operator_commands,
    serving_commands,
    upkeep_commands,
):
    app.add_typer(_commands)
app.add_typer(features_commands, name="features")
app.add_typer(batch_commands, name="batch")


_OF_THE_DISK = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES)


def main() -> None:
    """Run a command; an expected error ends with the next step and status 1."""
    quiet()
    try:
        # As Settings.withheld has it, which takes long to import; for what this process starts, too.
        os.umask(0o007 if os.environ.get("HEADWATER_GROUP") else 0o077)
        with warnings_shown():
            app()
    except HeadwaterError as error:
        _show(error)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        at = "" if error.filename is None else f" {error.filename}"
        _show(StorageError(f"the disk refuses{at}: {error.strerror}", "check the disk, then try again"))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("stopped: nothing unfinished was stored\n")
        raise SystemExit(130) from None


def run() -> None:
    """Run a command as a process of its own, which ends whatever a pipeline's module has started."""
    try:
        main()
    except SystemExit as ended:
        from headwater.infra.processes import exit_despite_threads

        sys.stdout.flush()
        sys.stderr.flush()
        exit_despite_threads(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise


def _show(error: HeadwaterError) -> None:
    if "--json" in sys.argv:
        print_json({"error": type(error).__name__, "what": error.what, "hint": error.hint})
    else:
        sys.stderr.write(f"error: {error.what}.\n" + (f"next: {error.hint}.\n" if error.hint else ""))
