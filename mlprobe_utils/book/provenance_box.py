"""The box at the end of a page: how it was made, from what, and the command that makes it again.

A page may be executed at another commit, and with other packages, than the artefacts that it shows were made: the box
names both.
"""

import html
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ValidationError

from mlprobe_utils.book.book_pages import script_of
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.baseline_card import FOLDER as BASELINES
from mlprobe_utils.pipeline.baseline_card import BaselineCard
from mlprobe_utils.pipeline.cards import ModelCard, Protocol
from mlprobe_utils.pipeline.fault_card import Fault
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.variants import SETTINGS
from mlprobe_utils.plots.tables import table_html

DIGITS = 12  # of a card's hash


class Provenance(BaseModel):
    """`provenance.json`, of an artefact or of this page. Memory is null where an earlier version made the artefact."""

    made_at: str  # ISO 8601, UTC: the order of the texts is that of the times
    seconds: float
    commit: str
    versions: dict[str, str]
    peak_memory_mib: float | None = None
    accelerator: str | None = None
    accelerator_peak_memory_mib: float | None = None


def provenance_box(
    name: str,
    parameters: dict,
    protocol: Protocol,
    models: Iterable[ModelCard],
    image_sets: Iterable[ImageSet],
    started: float,
    faults: Iterable[Fault] = (),
    baselines: Iterable[BaselineCard] = (),
) -> str:
    """The box of a page, as HTML that is folded until it is opened and needs no script.

    Args:
        name: the notebook's.
        parameters: everything it was run with, by name.
        protocol, models, image_sets: what the parameters name.
        started: when its execution began, seconds since the epoch.
        faults: that were planted for it.
        baselines: that were trained for it.

    Raises:
        InputError: no notebook of that name; an artefact behind the page is not there, or its provenance unreadable.
    """
    runs = range(protocol.fine_tuning.runs)
    page = Provenance(**artefacts.provenance(started))
    artefacts_behind = behind()
    made = [(_kind(folder), read_provenance(folder, by)) for folder, by in artefacts_behind.items()]
    execution = {
        "executed at": page.made_at,
        "duration (s)": page.seconds,
        "peak memory of the kernel (MiB)": page.peak_memory_mib,
        "commit": page.commit,
        "seed of the split": protocol.splits.seed,
        "seeds of the runs": ", ".join(map(str, runs)),
    }
    sections = {
        "Run this page again": f"<p>In a shell, from the project's root:</p><pre><code>"
        f"{html.escape(rerun_command(name, parameters))}</code></pre>",
        "This execution": table_html(_pairs(execution, "execution", "value")),
        "Cards and data": table_html(_cards(protocol, models, image_sets, [*faults, *baselines], artefacts_behind)),
        "Artefacts behind this page": "<p>Made before it, perhaps at other commits; a commit that ends in -dirty had "
        f"changes that were not committed.</p>{table_html(_summary(made))}",
        "Packages": table_html(_versions(page, [provenance for _, provenance in made])),
    }
    body = "".join(f"<h3>{title}</h3>{content}" for title, content in sections.items())
    return f'<details class="provenance"><summary>Provenance of this page</summary>{body}</details>'


def rerun_command(name: str, parameters: dict) -> str:
    """The command, for a shell in the project's root, that executes a notebook into <name>.ipynb there.

    It names this environment's Python from the root, or as `python` where the environment lies outside (conda).

    Raises:
        InputError: no notebook of that name.
    """
    python = Path(sys.executable)
    python = str(python.relative_to(artefacts.ROOT)) if python.is_relative_to(artefacts.ROOT) else "python"
    command = [python, "-m", "mlprobe_utils", "chapter", script_of(name).stem, f"{name}.ipynb"]
    return shlex.join([*command, "--parameters", json.dumps(parameters, ensure_ascii=False)])


def behind() -> dict[Path, str]:
    """The artefacts that were read for this page, and those that they were made from; each with the command for it."""
    return {folder: by for read, by in artefacts.READ.items() for folder in artefacts.upstream(read)}


def read_provenance(folder: Path, made_by: str) -> Provenance:
    """How an artefact was made; `made_by` is the command that makes it.

    Raises:
        InputError: it does not exist, or its `provenance.json` is not there or not readable.
    """
    artefacts.read_made_from(folder, made_by)
    try:
        return Provenance.model_validate_json((folder / "provenance.json").read_bytes())
    except (OSError, ValidationError) as error:
        place = artefacts.relative(folder)
        raise InputError(
            f"{place}/provenance.json cannot be read: remove the folder {place} and make it again with `{made_by}`"
        ) from error


def _pairs(pairs: dict, *columns: str) -> pd.DataFrame:
    return pd.DataFrame(pairs.items(), columns=columns)


def _cards(
    protocol: Protocol,
    models: Iterable[ModelCard],
    image_sets: Iterable[ImageSet],
    others: Iterable[Fault | BaselineCard],
    folders: dict[Path, str],
) -> pd.DataFrame:
    """One row a card; `content` is what the images, or the weights as they were read, are known by."""
    rows = [("protocol", protocol, protocol.title, "", "")]
    rows += [("model", card, card.name, *_weights(card, folders)) for card in models]
    rows += [("data set", image_set.card, image_set.card.name, image_set.data_hash, "") for image_set in image_sets]
    rows += [(card.kind, card, card.name, "", "") for card in others]
    return pd.DataFrame(
        [(kind, card.slug, name, card.content_hash[:DIGITS], *more) for kind, card, name, *more in rows],
        columns=["kind", "slug", "name", "card", "content", "read as"],
    )


def _weights(card: ModelCard, folders: dict[Path, str]) -> tuple[str, str]:
    """The hub's commit, or a fingerprint of the folder, that artefacts of a model were made from; how it was read."""
    records = [artefacts.read_made_from(f, by) for f, by in folders.items() if f.parent.name == card.slug]
    readings = [_words(record["reading"]) for record in records if "reading" in record]
    return _distinct(pd.Series([record.get("model") for record in records])), _distinct(pd.Series(readings))


def _words(reading: dict) -> str:
    """What decided how a model was read; a chat template is long, and stands in its card."""
    short = {key.replace("_", " "): value for key, value in reading.items() if key != "chat_template"}
    said = [f"{key} {value}" for key, value in short.items()]
    return ", ".join([*said, *(["its card's chat template"] if "chat_template" in reading else [])])


def _kind(folder: Path) -> str:
    """What an artefact is, by the first word of its folder; of a variant also what differs in it."""
    if folder.parent.name.startswith(BASELINES):
        return "baseline"
    if folder.parent.name == "phantoms":
        return "phantom"
    kind = "manifest" if folder.name == "data" else folder.name.split("-")[0]
    setting, value = folder.parent.parent.name, folder.parent.name
    return f"{kind}, {setting} {value}".replace("_", " ") if setting in SETTINGS else kind


def _summary(made: list[tuple[str, Provenance]]) -> pd.DataFrame:
    """One row a kind of artefact, the first made first; a peak that was not recorded is left empty."""
    frame = pd.DataFrame([{"artefact": kind} | provenance.model_dump() for kind, provenance in made])
    peaks = ["peak_memory_mib", "accelerator_peak_memory_mib"]
    frame[peaks] = frame[peaks].astype(float)
    columns = {
        "how many": ("seconds", "size"),
        "first made": ("made_at", "min"),
        "last made": ("made_at", "max"),
        "seconds in total": ("seconds", "sum"),
        "highest peak memory (MiB)": (peaks[0], "max"),
        "commits": ("commit", _distinct),
    }
    if frame["accelerator"].notna().any():
        columns |= {"accelerators": ("accelerator", _distinct), "highest peak on one (MiB)": (peaks[1], "max")}
    return frame.groupby("artefact").agg(**columns).reset_index().sort_values("first made")


def _versions(page: Provenance, made: list[Provenance]) -> pd.DataFrame:
    of_artefacts = pd.DataFrame([provenance.versions for provenance in made]).reindex(columns=list(page.versions))
    return pd.DataFrame(
        {"package": page.versions.keys(), "this page": page.versions.values(), "artefacts": of_artefacts.agg(_distinct)}
    )


def _distinct(values: pd.Series) -> str:
    return ", ".join(sorted(values.dropna().unique()))
