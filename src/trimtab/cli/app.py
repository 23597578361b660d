"""The commands put together, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trimtab import __version__
from trimtab.cli import (
    ask,
    bench,
    clusters,
    corpus,
    demo,
    doctor,
    dose,
    feature,
    features,
    find,
    index,
    models,
    pairs,
    recipe,
    runs,
    saes,
    serve,
    steer,
    sweep,
    train,
    verify,
)
from trimtab.cli.console import WORDS, complain
from trimtab.errors import TrimtabError
from trimtab.scale.folder import COMMAND

COMMANDS = (
    demo,
    pairs,
    find,
    steer,
    recipe,
    dose,
    verify,
    ask,
    bench,
    sweep,
    train,
    corpus,
    runs,
    index,
    features,
    feature,
    clusters,
    serve,
    models,
    saes,
    doctor,
)


class Commands(TyperGroup):
    """Exit codes: 0 done, 1 `doctor` found something broken, 2 bad input (one sentence on stderr), 130 interrupted.

    Anything else is a bug.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words as they were typed."""
        WORDS.set(tuple(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the manifests of runs that it begins have its words."""
        before = COMMAND.set(WORDS.get())
        try:
            return super().invoke(ctx)
        except TrimtabError as error:
            complain(f"Error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            complain("Interrupted.")
            raise typer.Exit(130) from None
        finally:
            COMMAND.reset(before)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    # Plain help is the same in every terminal, so docs/cli.md can be compared with it.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for command in COMMANDS:
    name = command.__name__.rpartition(".")[2]
    if hasattr(command, "group"):
        app.add_typer(command.group, name=name, epilog=command.EXAMPLES)
    else:
        app.command(name=name, epilog=command.EXAMPLES)(command.run)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"trimtab {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Steer language models along sparse-autoencoder features, and prove what the steering did.

    Results go to stdout, progress and messages to stderr. Exit code 0: done; 2: the input is not valid, with one
    sentence that says why; 130: interrupted; 1: `trimtab doctor` found something broken.

    Completion of commands and options in bash, zsh and fish: trimtab --install-completion.
    """
