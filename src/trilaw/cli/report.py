"""`trilaw report RUN`: build the report of a run folder anew, and print the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilaw.cli.terminal import say


def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.", show_default=False)],
    json_output: Annotated[bool, typer.Option("--json", help="Print report.json instead of a table.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", metavar="FILE", help="Also draw one figure of the run, as .svg or .png.", show_default=False
        ),
    ] = None,
) -> None:
    """Write report.html and report.json of a run, from its files alone."""
    # Imported here: charts load matplotlib, and other verbs should not wait for it.
    from rich.console import Console

    from trilaw.reports import words
    from trilaw.reports.charts import picture as draw
    from trilaw.reports.html import build
    from trilaw.reports.read import read_run
    from trilaw.reports.style import check_picture
    from trilaw.reports.table import essential, evaluations_table
    from trilaw.reports.verdicts import headline

    if picture is not None:
        check_picture(picture)
    path = build(run)
    content = read_run(run)
    if picture is not None:
        draw(content, picture)
    for fault in content.faults:
        say(fault, err=True)
    if json_output:
        typer.echo((run / "report.json").read_text(encoding="utf-8"), nl=False)
        return
    console = Console()
    console.print(words.line(headline(content), 2_000), markup=False, highlight=False)
    if content.shown:
        console.print(evaluations_table(essential(content.shown)))
    console.print(f"Report: {words.clean(str(path))}", markup=False, highlight=False, soft_wrap=True)
    if picture is not None:
        console.print(f"Picture: {words.clean(str(picture))}", markup=False, highlight=False, soft_wrap=True)
