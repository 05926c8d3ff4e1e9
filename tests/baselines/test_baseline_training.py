"""One baseline's artefact: what is in it, when it is made again, and that nobody learns from test images."""

import numpy as np
import pandas as pd
import pytest
from tiny_parts import make_image_set, newly_made
from transformers import set_seed

from mlprobe_utils.analysis.baselines import trained
from mlprobe_utils.baselines import training
from mlprobe_utils.baselines.networks import build
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import SCHEMA
from mlprobe_utils.pipeline.baseline_card import EPOCHS, BaselineCard, Variant, baseline_folder
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.pipeline.results import Selection

SELECTION = Selection((), ("busi", "covid19-ct"), "miniature", "paper")
SMALL = {"side": 16, "epochs": 3, "batch_size": 4, "runs": 2, "learning_rate": 0.01}
FULL, TINY = (
    Variant(library="own", name="s2_mlp", arguments={"width": width, "depth": 1, "patch_size": 4}) for width in (16, 8)
)
OF = {"slug": "mine", "name": "Mine", "category": "MLP", "status": "cited", "source": "nobody"}
CARD = BaselineCard(**OF, full=FULL, small=TINY)
RECIPE = load_protocol("miniature").baselines.model_copy(update=SMALL)


@pytest.fixture(scope="module")
def image_sets(tmp_path_factory):
    return {d: make_image_set(tmp_path_factory.mktemp(d), 36, d, 6, 9) for d in SELECTION.datasets}


@pytest.fixture
def run(outputs, image_sets, monkeypatch):
    """Runs the command with the recipe changed; returns the data sets that were trained on."""

    def go(datasets=SELECTION.datasets, **fields) -> list[str]:
        protocol = load_protocol("miniature")
        recipe = protocol.baselines.model_copy(update=SMALL | fields)
        monkeypatch.setattr(training, "load_protocol", lambda slug: protocol.model_copy(update={"baselines": recipe}))
        given = ["mine"], list(datasets), "miniature", "paper"
        return [path.split("/")[1] for path in newly_made(outputs, lambda: training.run_baselines(*given))]

    monkeypatch.setattr(training, "load_baseline", lambda slug: CARD)
    monkeypatch.setattr(training, "load_image_set", lambda slug, protocol: image_sets[slug])
    return go


def test_predictions_for_every_image_after_every_epoch_of_every_run_are_kept(run, image_sets):
    assert run() == sorted(SELECTION.datasets)
    for dataset, image_set in image_sets.items():
        rows = SCHEMA.validate(pd.read_parquet(baseline_folder("miniature", dataset, "paper", "mine") / EPOCHS))
        manifest = image_set.manifest[image_set.manifest["split_paper"].isin(["validation", "test"])]
        expected = manifest.set_index("image")[["option", "split_paper"]].sort_index().to_numpy().tolist()
        assert rows.groupby(["run", "epoch"]).ngroups == 2 * 3
        for _, own in rows.groupby(["run", "epoch"]):
            assert own.set_index("image")[["label", "split"]].sort_index().to_numpy().tolist() == expected
        options = [f"p_{option}" for option in image_set.card.options]
        np.testing.assert_allclose(rows[options].sum(axis=1), 1)
        assert not np.allclose(*(own[options] for _, own in rows.groupby("run")))
    found = trained(SELECTION, ["mine"])
    (own,) = found["covid19-ct"]  # the last of the loop
    assert (own.validation.correct.shape, own.test.correct.shape) == ((2, 3, 6), (2, 3, 9))
    wanted = rows[(rows["split"] == "test") & (rows["run"] == 1) & (rows["epoch"] == 2)].sort_values("image")
    np.testing.assert_allclose(own.test.probabilities[1, 1], wanted[[f"p_{option}" for option in own.test.options]])
    assert (own.test.points, own.side, own.parameters > 0) == ([1, 2, 3], 16, True)


def test_it_is_trained_once_and_again_where_something_changed(run, monkeypatch):
    assert run(["busi"]) == ["busi"]
    with pytest.raises(InputError, match=r"python -m mlprobe_utils baselines mine --datasets covid19-ct --protocol"):
        trained(SELECTION, ["mine"])
    assert run() == ["covid19-ct"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", lambda *_: pytest.fail("what is current is not trained"))
        assert run() == []
        assert run(chosen="last", left_out=["resnet"]) == []  # who is shown, and how
    assert run(["busi"], epochs=2) == ["busi"]
    assert run(["busi"], epochs=2, variant="full") == ["busi"]


def probabilities(image_set, folder) -> np.ndarray:
    set_seed(0)
    return training.train(build(CARD, "small", 3, RECIPE.side), image_set, "paper", RECIPE, 0, folder, "mine")


def test_a_training_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(image_sets, tmp_path, monkeypatch):
    step, steps, real = 14, [], training.ClassificationTrainer.training_step  # of 5 an epoch: at the end of the last

    def killed(self, *given, **named):
        steps.append(self.state.global_step)
        if len(steps) == step + 1:
            raise KeyboardInterrupt
        return real(self, *given, **named)

    whole = probabilities(image_sets["busi"], tmp_path / "whole")
    monkeypatch.setattr(training.ClassificationTrainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        probabilities(image_sets["busi"], tmp_path / "killed")
    np.testing.assert_array_equal(probabilities(image_sets["busi"], tmp_path / "killed"), whole)
    assert steps[step + 1] == step // 5 * 5  # what was done was not done again


def test_a_seed_tells_all_and_test_and_validation_images_teach_nothing(tmp_path):
    image_set = make_image_set(tmp_path, 36, "busi", 6, 9)
    before = probabilities(image_set, tmp_path / "as it is")
    other = image_set.manifest["split_paper"] != "train"
    image_set.manifest.loc[other, "option"] = "Benign"
    np.testing.assert_array_equal(before, probabilities(image_set, tmp_path / "other test labels"))
    image_set.manifest.loc[~other, "option"] = "Benign"
    assert not np.allclose(before, probabilities(image_set, tmp_path / "other train labels"))


def test_images_are_cut_and_mirrored_in_training_only(tmp_path):
    image_set = make_image_set(tmp_path, 12, "busi")
    positions = image_set.rows_of("paper", "train").index
    for differs in (True, False):
        pictures = training.pictures(image_set, positions, training.transform(RECIPE, training=differs))
        one, again = (training.batch([pictures[i] for i in range(3)]) for _ in range(2))
        assert (one["images"].shape, one["labels"].tolist()) == ((3, 3, 16, 16), [0, 1, 2])
        assert bool((one["images"] != again["images"]).any()) == differs
    middle = training.transform(RECIPE.model_copy(update={"shorter_side": 32}), training=False)
    assert training.pictures(image_set, positions, middle)[2][0].shape == (3, 16, 16)


def test_fewer_images_than_a_batch_are_refused(run):
    with pytest.raises(InputError, match=r"'busi', split 'paper': 21 train images are no batch of 32: lower baselines"):
        run(["busi"], batch_size=32)
