"""The box at the end of a page: how it was made, from what, and the command that makes it again. A page may be executed
at another commit, with other packages, than its artefacts were made: the box names both."""

import html
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mlprobe_utils.book.book_pages import script_of
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.baseline_card import FOLDER as BASELINES
from mlprobe_utils.pipeline.cards import Card, ModelCard, Protocol
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.variants import SETTINGS
from mlprobe_utils.plots.figures import table_html

DIGITS = 12  # of a card's hash
RECORDED = ["made_at", "seconds", "commit", "versions"]  # of an artefact; of earlier ones no more
RECORDED += ["peak_memory_mib", "accelerator", "accelerator_peak_memory_mib"]


def provenance_box(
    name: str, parameters: dict, protocol: Protocol, cards: Iterable[Card | ImageSet], started: float
) -> str:
    """The box of the page of notebook `name`, folded HTML. `cards`: all that the page depends on, in the rows' order;
    `started`: seconds since the epoch. InputError for an unknown notebook and a missing artefact."""
    page = artefacts.provenance(started)
    # those that were read for this page, and those that they were made from, each with the command that makes it
    folders = {folder: by for read, by in artefacts.READ.items() for folder in artefacts.upstream(read)}
    records = {folder: artefacts.read_made_from(folder, by) for folder, by in folders.items()}
    made = pd.DataFrame([json.loads((one / "provenance.json").read_bytes()) for one in records], columns=RECORDED)
    made.insert(0, "artefact", [_kind(folder) for folder in records])
    execution = {
        "executed at": page["made_at"],
        "duration (s)": page["seconds"],
        "peak memory (MiB)": page["peak_memory_mib"],
        "commit": page["commit"],
        "split seed": protocol.splits.seed,
        "run seeds": ", ".join(map(str, range(protocol.fine_tuning.runs))),
    }
    versions = pd.DataFrame([*made["versions"]]).reindex(columns=[*page["versions"]])
    packages = {"package": page["versions"].keys(), "this page": page["versions"].values()}
    packages |= {"artefacts": versions.agg(_distinct)}
    own = Path(sys.executable).is_relative_to(artefacts.ROOT)  # else the environment lies outside (conda)
    python = artefacts.relative(sys.executable) if own else "python"
    command = [python, "-m", "mlprobe_utils", "chapter", script_of(name).stem, f"{name}.ipynb"]
    command = shlex.join([*command, "--parameters", json.dumps(parameters, ensure_ascii=False)])
    sections = {
        "Run this page again": "<p>In a shell, in the project's root folder:</p>"
        f"<pre><code>{html.escape(command)}</code></pre>",
        "This execution": table_html(pd.DataFrame(execution.items(), columns=["execution", "value"])),
        "Cards and data": table_html(pd.DataFrame([_row(card, records) for card in cards])),
        "Artefacts behind this page": "<p>Made earlier, possibly at other commits; -dirty marks a checkout with "
        f"uncommitted changes.</p>{table_html(_summary(made))}",
        "Packages": table_html(pd.DataFrame(packages)),
    }
    body = "".join(f"<h3>{title}</h3>{content}" for title, content in sections.items())
    return f'<details class="provenance"><summary>Provenance of this page</summary>{body}</details>'


def _row(card: Card | ImageSet, records: dict[Path, dict]) -> dict[str, str]:
    """One card; `content` identifies the images, or the weights (the hub's commit or a fingerprint of the folder)."""
    content = read_as = ""
    if isinstance(card, ImageSet):
        card, content = card.card, card.data_hash
    elif isinstance(card, ModelCard):
        made = [record for folder, record in records.items() if folder.parent.name == card.slug]
        content = _distinct(pd.Series([record.get("model") for record in made]))
        read_as = _distinct(pd.Series([_words(record["reading"]) for record in made if "reading" in record]))
    name = card.title if isinstance(card, Protocol) else card.name
    own = {"kind": card.in_words, "slug": card.slug, "name": name, "card": card.content_hash[:DIGITS]}
    return own | {"content": content, "loaded with": read_as}


def _words(loading: dict) -> str:
    """How a model was loaded; a chat template is long, and stands in its card."""
    words = [f"{key.replace('_', ' ')} {value}" for key, value in loading.items() if key != "chat_template"]
    return ", ".join(words + ["its card's chat template"] * ("chat_template" in loading))


def _kind(folder: Path) -> str:
    """The kind of an artefact, from the first word of its folder; of a variant also what differs in it."""
    if (of := folder.parent.name).startswith(BASELINES) or of == "phantoms":
        return "phantom" if of == "phantoms" else "baseline"
    kind = "manifest" if folder.name == "data" else folder.name.split("-")[0]
    setting, value = folder.parent.parent.name, folder.parent.name
    return f"{kind}, {setting} {value}".replace("_", " ") if setting in SETTINGS else kind


def _summary(made: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of artefact, the first made first; a peak that was not recorded is left empty."""
    made = made.astype(dict.fromkeys(("peak_memory_mib", "accelerator_peak_memory_mib"), float))
    columns = {
        "count": ("seconds", "size"),
        "first made": ("made_at", "min"),
        "last made": ("made_at", "max"),
        "total seconds": ("seconds", "sum"),
        "peak memory (MiB)": ("peak_memory_mib", "max"),
        "commits": ("commit", _distinct),
    }
    if made["accelerator"].notna().any():
        columns["accelerators"] = ("accelerator", _distinct)
        columns["accelerator peak memory (MiB)"] = ("accelerator_peak_memory_mib", "max")
    return made.groupby("artefact").agg(**columns).reset_index().sort_values("first made")


def _distinct(values: pd.Series) -> str:
    return ", ".join(sorted(values.dropna().unique()))
