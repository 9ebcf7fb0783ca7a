from __future__ import annotations

from io import StringIO

from rich.console import Console

from trilaw.core.types import Estimate, Evaluation
from trilaw.reports.table import essential, evaluations_table


def row(stage: str, metric: str, value: float, split: str = "test") -> Evaluation:
    return Evaluation(stage, "calc", split, metric, Estimate(value, value - 0.01, value + 0.01, 1024, "bootstrap"))


def printed(rows: list[Evaluation]) -> str:
    file = StringIO()
    console = Console(file=file, width=120)
    console.print(evaluations_table(rows))
    return file.getvalue()


def test_shares_are_percentages_and_lengths_are_not() -> None:
    text = printed([row("zero", "pass@1", 0.95), row("zero", "mean_tokens", 24.2)])
    lines = text.splitlines()
    assert any("zero" in line and "95 %" in line and "[94, 96] %" in line and "1,024" in line for line in lines)
    assert any("24.2" in line and "%" not in line for line in lines if "mean_tokens" in line)
    assert text.count("zero") == 1


def test_markup_in_names_is_not_obeyed() -> None:
    assert "[red]zero[/red]" in printed([row("[red]zero[/red]", "pass@1", 0.5)])


def test_essential_rows_keep_the_ends_of_each_curve() -> None:
    metrics = ["pass@1", "pass@2", "pass@16", "maj@1", "maj@2", "maj@8", "mean_tokens", "truncated"]
    rows = [row("zero", metric, 0.5) for metric in metrics] + [row("zero", "pass@4", 0.5, split="hard")]
    assert [r.metric for r in essential(iter(rows))] == [
        "pass@1",
        "pass@16",
        "maj@8",
        "mean_tokens",
        "truncated",
        "pass@4",
    ]
