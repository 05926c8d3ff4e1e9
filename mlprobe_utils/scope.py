"""What is real on a page and what is not, in words."""

from mlprobe_utils.cards import DataCard, ModelCard


def scope(models: dict[str, ModelCard], datasets: dict[str, DataCard]) -> str:
    """One or two sentences: which images are real and which synthetic, which models are miniatures."""
    real = [card.name for card in datasets.values() if not card.synthetic]
    synthetic = [card.name for card in datasets.values() if card.synthetic]
    small = [card.name for card in models.values() if card.is_miniature and not card.is_untrained]
    random = [card.name for card in models.values() if card.is_untrained]
    full = [card.name for card in models.values() if not card.is_miniature]
    sentences = []
    if real:
        sentences.append(f"The images of {_listed(real)} are real.")
    if synthetic:
        sentences.append(f"The images of {_listed(synthetic)} are synthetic phantoms, not of any patient.")
    kinds = [f"trained from scratch here ({_listed(small)})"] if small else []
    kinds += [f"with random weights, which have learned nothing ({_listed(random)})"] if random else []
    if kinds:
        sentences.append(
            f"The models are miniatures: {', or '.join(kinds)}. Their figures say nothing about the originals."
        )
    if full:
        sentences.append(f"{_listed(full)}: no miniature, weights as its card names them.")
    return " ".join(sentences)


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
