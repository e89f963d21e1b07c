"""Every batch that the adapter sends is one that Microsoft's own parser reads."""

from __future__ import annotations

import pytest

from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.sql.sqlserver.escapes import PROBE
from tests.contract.sql.documents import Documents
from tests.support.sqlserver_statements import sent_batches
from tests.tsql.judge import Judge


@pytest.fixture(scope="module")
def model() -> Model:
    """The built-in entities."""
    return load_model()


async def batches_of(model: Model) -> list[str]:
    """All that is sent for a few events, and for everything else that the adapter does."""
    docs = Documents(model, 1_700_000_000_000_000)
    one = [docs.message("c", "m", 1)]
    several = [*one, docs.follow("a", "b", 1), docs.gone("DmMessage", ("c", "x"), 2)]
    return await sent_batches(model, [one, several])


async def test_values_are_bound_and_nothing_is_left_to_fill_in(model: Model) -> None:
    """A brace that is left over is a name that was forgotten; a mark too many, a value."""
    sent = await batches_of(model)
    assert len(sent) > 60
    filled = [batch.replace(PROBE, "").replace("{}", "") for batch in sent]
    assert [batch for batch in filled if "?" in batch or "{" in batch] == []


async def test_microsoft_s_parser_reads_every_batch(model: Model, tsql_judge: Judge) -> None:
    """None of them is executed where they are written."""
    assert tsql_judge.batches(await batches_of(model)) == []
