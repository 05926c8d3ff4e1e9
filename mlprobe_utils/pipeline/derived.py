"""Tables that follow from a run's per-image rows: made where they are first read, and kept beside the rows.

So a changed score is on the page without a model being loaded: what reads a table that is not current makes it anew.
"""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from filelock import FileLock

from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.code import code_hash
from mlprobe_utils.pipeline.results import Selection, made

TABLE = "table.parquet"


def derived(
    selection: Selection,
    name: str,
    sources: list[str],
    module: str,
    make: Callable[[Selection], pd.DataFrame],
    **recipe: float,
) -> pd.DataFrame:
    """A derived table of every selected model and data set, one below the other.

    Args:
        selection: which ones.
        name: of the artefact.
        sources: the artefacts, beside it, whose rows it is made of.
        module: the name of the module whose code `make` runs.
        make: from one model and one data set to its table.
        recipe: what else the table depends on; that the data card has a positive option counts without being named.

    Raises:
        InputError: what the table is made of is not there, with the command that makes it; and what `make` raises.
    """
    code, frames = code_hash(module), []
    for model, dataset, folder in selection.folders():
        own = folder / name
        folders = [made(selection, model, dataset, folder / source) for source in sources]
        upstream = {artefacts.from_outputs(source): artefacts.content_hash(source) for source in folders}
        made_from = {"stage": name, "upstream": upstream, "code": code}
        made_from["recipe"] = recipe | {"positive": load_data_card(dataset).positive}
        with FileLock(own.with_name(f".{name}.lock")):  # two pages may want it at once
            if not artefacts.is_current(own, made_from):
                with artefacts.artefact(own, made_from) as temporary:
                    one = replace(selection, models=(model,), datasets=(dataset,))
                    write_parquet(make(one), temporary / TABLE)
        frames.append(pd.read_parquet(made(selection, model, dataset, own) / TABLE))
    return pd.concat(frames, ignore_index=True)
