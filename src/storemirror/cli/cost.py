"""What a scan of the documents will cost: said before it, and asked about."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from storemirror.cli.output import counted
from storemirror.errors import ConfigError
from storemirror.model.entity import Entity
from storemirror.source.backfill import estimate_reads
from storemirror.source.backfill_plan import Estimate
from storemirror.source.budget import ReadBudget, ReadBudgetSpent
from storemirror.source.port import DocumentStore

#: Dollars for 100,000 document reads; list price of the large regions.
DEFAULT_PRICE_USD: Final = 0.06

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed in scripts.")]
MaxReadsOption = Annotated[
    int | None,
    typer.Option("--max-reads", min=1, help="Never pay for more document reads than this."),
]
DrainSecondsOption = Annotated[
    float, typer.Option("--drain-seconds", min=0.0, help="Longest wait for the backlog to drain.")
]
PriceOption = Annotated[
    float, typer.Option("--price", min=0.0, help="Dollars for 100,000 document reads.")
]


def refuse_unasked(*, is_asking: bool) -> None:
    """Refuse to go on where somebody is to be asked and nobody is there."""
    if is_asking and not sys.stdin.isatty():
        raise typer.BadParameter(
            "nobody can be asked here whether to pay for it; say --yes (and --max-reads)"
        )


async def counted_reads(
    store: DocumentStore,
    entities: Sequence[Entity],
    budget: ReadBudget,
    *,
    price_usd: float,
    max_documents: int | None = None,
) -> Estimate:
    """
    Count the documents, `max_documents` of each entity at most, and say what reading them costs.

    Raises:
        ConfigError: the budget does not even pay for the counting.
        SourceUnavailable, SourceRefused: nothing was read.
    """
    try:
        return await estimate_reads(
            store,
            entities,
            budget=budget,
            price_per_100k_usd=price_usd,
            max_documents=max_documents,
        )
    except ReadBudgetSpent as exc:
        raise ConfigError(
            f"--max-reads {budget.max_count} does not even pay for counting the documents; "
            "nothing but that was read"
        ) from exc


def announce(estimate: Estimate, *, max_reads: int | None, done_count: int = 0) -> None:
    """Say what it will cost, on standard error: standard output may be JSON."""
    lines = [f"{name}: {counted(n, 'document')}" for name, n in estimate.document_counts.items()]
    if done_count:
        lines.append(f"begun before: {counted(done_count, 'document')} are done; this is the rest")
    lines.append(
        f"about {counted(estimate.read_count, 'document read')}, about"
        f" ${estimate.price_usd:.2f} at ${estimate.price_per_100k_usd:g} for 100,000"
        " (an estimate: documents come and go, and prices differ by region)"
    )
    if max_reads is not None:
        lines.append(f"stops before read {max_reads + 1}")
    for line in lines:
        typer.echo(line, err=True)
