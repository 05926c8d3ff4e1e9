"""Other wordings: what leaves the interval, what is significant on the same images, and chance, which is neither."""

import numpy as np
import pandas as pd
import pytest
from simulated_rows import answers_of, image_set

from mlprobe_utils.analysis.certainty import prompt_changes
from mlprobe_utils.evaluation.question import OWN_PROMPT
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER

SETS = {"d": image_set(400)}


def test_a_drop_is_significant_by_its_images_and_outside_by_its_size():
    easy = np.random.default_rng(0).permutation(400)
    right = {"much": easy < 200, "less": easy < 268, "more": easy < 292, "other": easy[::-1] < 284}
    rows = pd.concat([answers_of(own, control=name) for name, own in right.items()], ignore_index=True)
    rows.loc[(rows["control"] == "much") & (rows["parsed"] != rows["label"]), "parsed"] = None
    own = answers_of(easy < 280, control=OWN_PROMPT)
    found = prompt_changes(pd.concat([rows, own]), SETS, "paper").set_index("prompt").loc[[*right]]
    assert found["verdict"].tolist() == [LOWER, LOWER, HIGHER, NEITHER]
    assert found["outside"].tolist() == [True, False, False, False]
    assert found["unparsed"].tolist() == [50, 0, 0, 0]
    assert found["change"].tolist() == pytest.approx([-20, -3, 3, 1])
    assert (found["accuracy"] - found[OWN_PROMPT]).tolist() == pytest.approx(found["change"].tolist())
    assert prompt_changes(own, SETS, "paper").empty
