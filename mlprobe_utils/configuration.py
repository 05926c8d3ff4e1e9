"""What one `make book` runs over: checked before anything starts."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mlprobe_utils.artefacts import ROOT
from mlprobe_utils.cards import DataCard, load_data_card, load_model_card, load_protocol, slugs
from mlprobe_utils.datasets.image_set import SPLITS
from mlprobe_utils.errors import InputError, unknown
from mlprobe_utils.results import Selection

# The embedded default: a miniature of each of the paper's fourteen, in the order of its Table 1, and of its two bases
MODELS = (
    "medvlm-r1-miniature",
    "huatuogpt-vision-7b-miniature",
    "huatuogpt-vision-34b-miniature",
    "lingshu-7b-miniature",
    "lingshu-32b-miniature",
    "shizhengpt-7b-vl-miniature",
    "shizhengpt-32b-vl-miniature",
    "hulu-med-4b-miniature",
    "hulu-med-7b-miniature",
    "hulu-med-14b-miniature",
    "hulu-med-32b-miniature",
    "medgemma-4b-miniature",
    "medgemma-27b-miniature",
    "medgemma-1.5-4b-miniature",
    "qwen2.5-vl-7b-miniature",
    "gemma-3-4b-miniature",
)


@dataclass(frozen=True)
class Run(Selection):
    """What a book selects, and where its real images are."""

    data: str  # a folder, absolute; empty where only phantoms are named

    def parameters(self) -> dict:
        """The parameters that every chapter takes; the folder from the project's root, so that pages name no home."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return plain | {"data": os.path.relpath(self.data, ROOT) if self.data else ""}


def configure(models: list[str], datasets: list[str], protocol: str, split: str, data: str) -> Run:
    """The run that was asked for; empty lists stand for the defaults, a relative folder starts at the project's root.

    Raises:
        InputError: an unknown slug, a card that is not valid, a folder that does not exist, real images without one.
    """
    load_protocol(protocol)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    folder = (ROOT / data).resolve()  # a chapter's own directory is notebooks/, a step's is outputs/
    if not folder.exists():
        raise InputError(f"DATA: there is no {folder}; give the folder that holds the images (see data/README.md)")
    default = [slug for slug in slugs(DataCard) if load_data_card(slug).synthetic != bool(data)]
    run = Run(
        tuple(dict.fromkeys(models)) or MODELS,
        tuple(dict.fromkeys(datasets)) or tuple(default),
        protocol,
        split,
        str(folder) if data else "",
    )
    for slug in run.models:
        load_model_card(slug)
    for slug in run.datasets:
        if not load_data_card(slug).synthetic and not data:
            raise InputError(
                f"'{slug}' is a real data set: give DATA=<folder> (data/README.md says what to download), "
                f"or choose '{slug}-phantom'"
            )
    return run


def lineages(models: Iterable[str]) -> dict[str, list[str]]:
    """What has to be made for these models: the miniature that others descend from -> it and those, bases first."""
    made: dict[str, list[str]] = {}
    for slug in models:
        if load_model_card(slug).made_by:
            ancestry = [slug]
            while base := load_model_card(ancestry[0]).base:
                ancestry.insert(0, base)
            made[ancestry[0]] = list(dict.fromkeys([*made.get(ancestry[0], []), *ancestry]))
    return made
