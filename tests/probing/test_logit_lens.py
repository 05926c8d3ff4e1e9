"""The logit lens: at the last point it is the model's own next token, and a planted direction is seen where it is."""

import numpy as np
import pandas as pd
import torch
from tiny_parts import card_of, each_family_with, make_tiny

from mlprobe_utils.evaluation.rows import SCHEMA, predicted_option
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import load
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.probing.logit_lens import LENS, first_tokens, lens_rows, through_the_lens

OPTIONS = ["Normal", "Benign", "Malignant"]
CONSTANTS = {"model": "m", "dataset": "busi", "data_hash": "0" * 64, "split_rule": "paper", "order": "image_first"}
CONSTANTS |= {"stage": "pretrained", "run": None}


@each_family_with("tied", True, False)
def test_at_the_last_point_it_is_the_models_own_next_token(image_set, tmp_path, family, tied):
    """Whether the head is that of the embeddings or one of its own."""

    def change(config):
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied

    loaded = load(card_of(make_tiny(family, tmp_path, change=change)))
    head, embeddings = loaded.model.get_output_embeddings(), loaded.model.get_input_embeddings()
    assert (head.weight is embeddings.weight) == tied
    encoder = Encoder(loaded.processor, image_set.card.template)
    questions = encoder.questions([image_set.pixels(i) for i in range(6)])  # four sizes: a batch is padded
    tokens = first_tokens(encoder, image_set.card.options)
    assert len(set(tokens)) == 3
    features = features_of(loaded, questions)
    last = [key for key in features if key.endswith("last_token")][-1]
    found, first = (through_the_lens(loaded, features[key], tokens, 4) for key in (last, "L.00/last_token"))
    with torch.no_grad():
        expected = loaded.model(**questions).logits[:, -1, tokens].double().softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.allclose(first, expected, rtol=1e-2)


def test_a_planted_class_is_seen_where_it_is_spoken_and_nowhere_else(tiny, encoder):
    """At L.01 the states lie along the head's rows of the true options; at L.02 the same, turned out of its sight."""
    splits, names = np.repeat(["train", "validation", "test"], [3, 3, 60]), [f"{i}.png" for i in range(66)]
    images = pd.DataFrame({"image": names, "option": np.tile(OPTIONS, 22).astype(object), "split": splits})
    tokens = first_tokens(encoder, OPTIONS)
    head = tiny.model.get_output_embeddings().weight.detach()[tokens].float()
    truth = torch.tensor(images["option"].map(OPTIONS.index).to_list())
    noise = torch.randn(66, 32, generator=torch.Generator().manual_seed(0))
    weight = tiny.model.get_submodule("model.language_model.norm").weight.detach()
    basis = torch.linalg.pinv(head * weight)  # columns: seen by one option's token alone
    spoken = basis.T[truth] * 10 / basis.norm()
    unseen = torch.linalg.svd(head * weight).Vh[3:6]
    features = dict.fromkeys(("V.00/image_mean", "L.00/last_token", "L.01/image_mean"), noise)
    features |= {"L.02/last_token": 10 * unseen[truth], "L.01/last_token": 10 * spoken + noise / 100}
    rows = SCHEMA.validate(lens_rows(tiny, features, images, OPTIONS, tokens, 16, CONSTANTS))
    assert list(rows["point"].unique()) == ["L.00", "L.01", "L.02"]
    assert (set(rows["probe"]), set(rows["pooling"])) == ({LENS}, {"last_token"})
    assert set(rows["split"]) == {"validation", "test"}
    correct = (predicted_option(rows) == rows["label"]).groupby(rows["point"]).mean()
    assert correct["L.00"] < 0.6 < correct["L.01"] == 1
    blind = rows.loc[rows["point"] == "L.02", [f"p_{option}" for option in OPTIONS]]
    np.testing.assert_allclose(blind, 1 / 3, atol=1e-3)  # a probe would tell all of them


def test_options_that_begin_alike_share_what_their_token_has(tiny):
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    alone = through_the_lens(tiny, states, [40, 41], 5)
    shared = through_the_lens(tiny, states, [40, 41, 40], 2)  # the size of batches changes nothing
    np.testing.assert_allclose(shared[:, 1], alone[:, 1], rtol=1e-5)
    np.testing.assert_allclose(shared[:, [0, 2]], alone[:, [0, 0]] / 2, rtol=1e-5)
    np.testing.assert_allclose(through_the_lens(tiny, states, [40, 40, 40], 5), 1 / 3)
