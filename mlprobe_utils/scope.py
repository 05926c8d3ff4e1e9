"""What is real on a page and what is not, in words."""

from mlprobe_utils.cards import DataCard, ModelCard

MOST_NAMES = 4  # more are counted: the page's parameters list them


def scope(models: dict[str, ModelCard], datasets: dict[str, DataCard]) -> str:
    """One or two sentences: which images are real and which synthetic, which models are miniatures."""
    real = _listed([card.name for card in datasets.values() if not card.synthetic], "data sets")
    synthetic = _listed([card.name for card in datasets.values() if card.synthetic], "data sets")
    small = _listed([card.name for card in models.values() if card.is_miniature and not card.is_untrained], "models")
    random = _listed([card.name for card in models.values() if card.is_untrained], "models")
    full = _listed([card.name for card in models.values() if not card.is_miniature], "models")
    sentences = []
    if real:
        sentences.append(f"The images of {real} are real.")
    if synthetic:
        sentences.append(f"The images of {synthetic} are synthetic phantoms, not of any patient.")
    kinds = [f"trained from scratch here ({small})"] if small else []
    kinds += [f"with random weights, which have learned nothing ({random})"] if random else []
    if kinds:
        sentences.append(
            f"The models are miniatures: {', or '.join(kinds)}. Their figures say nothing about the originals."
        )
    if full:
        sentences.append(f"{full}: no miniature, weights as its card names them.")
    return " ".join(sentences)


def _listed(names: list[str], kind: str) -> str:
    if len(names) > MOST_NAMES:
        return f"{len(names)} {kind}"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
