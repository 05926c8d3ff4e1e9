"""What sees the class of a phantom set: its controls, the reference, and a small convolutional network that is trained
on images drawn afresh; all tested on the card's test images, with exact intervals.

Makes the set and its manifest in `outputs/` where they are missing. A few minutes on one core.
"""

import argparse
import datetime
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from mlprobe_utils.datasets.controls import pixel_statistics, reference_rows, rows_without_model
from mlprobe_utils.evaluation.names import CLASSICAL
from mlprobe_utils.evaluation.rows import predicted_option
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.images import build_manifest, load_image_set
from mlprobe_utils.pipeline.laboratory_results import exact_interval
from mlprobe_utils.synthetic.phantoms import making

SLUG, PROTOCOL, SPLIT = "whirlpool-phantom", "miniature", "paper"
TRAINED, EPOCHS, SEED = 5000, 12, 9
NETWORK = "small convolutional network"
BOUND, LEAD = 15, 30  # points: of a control's upper end above chance, at most; of the network above controls, at least


def drawn_afresh(slug: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of a phantom's card that are in no set, uint8 [count, side, side], and the place of each one's class; as
    the test set has them in proportion."""
    card = load_data_card(slug)
    recipe = making.read_recipe(card)
    counts = card.test_counts or card.release_counts["test"]
    truth = np.random.default_rng(0).choice(len(counts), count, p=np.array([*counts.values()]) / sum(counts.values()))
    classes = [[*counts][place] for place in truth]
    return np.stack([making.drawn(card, recipe, "captions", own, SEED, i)[0] for i, own in enumerate(classes)]), truth


def prepared(images: np.ndarray) -> torch.Tensor:
    tensor = torch.tensor(images[:, None]).float()
    return (tensor - tensor.mean((1, 2, 3), keepdim=True)) / tensor.std((1, 2, 3), keepdim=True)


def network(images: np.ndarray, truth: np.ndarray, epochs: int) -> nn.Module:
    """A network of three convolutions, trained on grey images, uint8 [images, side, side]; the same on every call."""
    inputs, targets = prepared(images), torch.tensor(truth)
    torch.manual_seed(0)
    layers = []
    for before, after, size, stride in ((1, 16, 5, 2), (16, 32, 3, 1), (32, 64, 3, 1)):
        convolution = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    found = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(int(targets.max()) + 1))
    found(inputs[:2])
    optimiser = torch.optim.AdamW(found.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs * -(-len(inputs) // 64))
    for batch in (batch for _ in range(epochs) for batch in torch.randperm(len(inputs)).split(64)):
        shifted = inputs[batch].roll(torch.randint(-2, 3, (2,)).tolist(), (2, 3))
        optimiser.zero_grad()
        nn.functional.cross_entropy(found(shifted), targets[batch], label_smoothing=0.02).backward()
        optimiser.step()
        schedule.step()
    return found.eval()


def predicted(found: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return found(prepared(images)).argmax(1).numpy()


def seen_by(slug: str, trained: int = TRAINED, epochs: int = EPOCHS) -> pd.DataFrame:
    """what, images (trained on), correct, tested, share and the ends of its 95 % interval (percent)."""
    making.make(slug)
    build_manifest(slug, PROTOCOL, None)
    image_set = load_image_set(slug, PROTOCOL)
    tested = image_set.rows_of(SPLIT, "test")
    rows = rows_without_model(image_set, SPLIT, pixel_statistics(image_set))
    rows = pd.concat([rows, reference_rows(image_set, SPLIT)], ignore_index=True)
    counts = {CLASSICAL: len(image_set.rows_of(SPLIT, "train")), NETWORK: trained}
    right = {what: (predicted_option(own) == own["label"]).sum() for what, own in rows.groupby("control", sort=False)}
    images, truth = drawn_afresh(slug, trained)
    grey = np.stack([image_set.pixels(place)[..., 0] for place in tested.index])
    classes = np.array([*(image_set.card.test_counts or image_set.card.release_counts["test"])])
    right[NETWORK] = (classes[predicted(network(images, truth, epochs), grey)] == tested["label"]).sum()
    others = len(image_set) - len(tested)
    table = [
        (what, counts.get(what, others), own, len(tested), 100 * own / len(tested), *exact_interval(own, len(tested)))
        for what, own in right.items()
    ]
    return pd.DataFrame(table, columns=["what", "trained on", "correct", "of", "%", "low", "high"])


def lead(table: pd.DataFrame) -> float:
    """Points by which the network is ahead of the best control."""
    shares = table.set_index("what")["%"]
    return shares[NETWORK] - shares.drop([NETWORK, CLASSICAL]).max()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default=SLUG, help="slug of a phantom's card")
    parser.add_argument("--trained", type=int, default=TRAINED, help="images that the network is trained on")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the network")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = seen_by(options.dataset, options.trained, options.epochs)
    place = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=place)
    command = " ".join(["benchmarks/seen_by.py", *(sys.argv[1:] if arguments is None else arguments)])
    print(f"{datetime.date.today()}, commit {commit.stdout.strip()}, torch {torch.__version__}, `{command}`\n")
    print("| " + " | ".join(table) + " |\n" + "|---|" + "---:|" * (table.shape[1] - 1))
    for row in table.itertuples(index=False):
        print(f"| {row[0]} | " + " | ".join(f"{value:,}" for value in row[1:4]) + " | ", end="")
        print(" | ".join(f"{value:.1f}" for value in row[4:]) + " |")
    print(f"\nThe network is {lead(table):.1f} points ahead of the best control (target: {LEAD} or more).")


if __name__ == "__main__":
    main()
