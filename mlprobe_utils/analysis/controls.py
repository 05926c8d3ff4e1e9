"""Controls and baselines: accuracy of probes and answers after fine-tuning minus that of what knows less."""

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.certainty import ANSWER
from mlprobe_utils.evaluation import names
from mlprobe_utils.evaluation.metrics import ENDS
from mlprobe_utils.evaluation.outcomes import single_outcomes
from mlprobe_utils.pipeline.tested import Evaluated
from mlprobe_utils.stats.intervals import RECIPE, WEIGHTS
from mlprobe_utils.stats.paired import WORDS, Pair, compare

BLIND = "best rule without a model"  # of WITHOUT_MODEL the one with the highest test accuracy: it favours the rule
CONTROLS = (names.CONTROL_TASK, names.RANDOM_WEIGHTS, names.TEXT_ONLY, BLIND, names.CLASSICAL)


def beside_controls(found: Iterable[Evaluated], rows: pd.DataFrame) -> pd.DataFrame:
    """Paired tests of accuracy minus that of each of CONTROLS, of `certainty.outcomes_of` and the rows of all controls:
    dataset, model, control, site (of ENDS), and the columns of `paired.compare`; the answer is that of CONTROL_RUN.
    Random weights and control task are those of the same probe point, and text alone is compared with answers alone."""
    pairs, rows = [], rows[rows["control"].ne(names.MEMORISATION) & rows["stage"].ne("pretrained")]
    for own in found:
        ends = {site: own.outcomes["finetuned", ANSWER if site == names.OUTPUT else site] for site in ENDS}
        of_own = rows[rows["dataset"].eq(own.dataset) & rows["model"].fillna(own.model).eq(own.model)]
        points = of_own["point"].fillna("")
        kept, correct = points.isin(["", *(end.points[0] for end in ends.values())]), {}
        for place, group in of_own[kept].groupby(["control", points[kept]]):
            what, parsed = f"{own.model} on {own.dataset}, {place[0]}", place[0] == names.TEXT_ONLY
            correct[place] = single_outcomes(group, ends[names.OUTPUT].images, what, parsed)
        rules = [correct.pop((name, "")) for name in names.WITHOUT_MODEL if (name, "") in correct]
        correct[BLIND, ""] = max(rules, key=np.mean)
        for ((control, point), before), (site, end) in product(correct.items(), ends.items()):
            if end.points == [point] or (not point and (site == names.OUTPUT or control != names.TEXT_ONLY)):
                scope = WEIGHTS if site == names.OUTPUT else RECIPE
                place = own.place(control=control, site=site)
                pairs.append(Pair(place, before[None, None], end.correct, own.resamples, scope))
    return compare(pairs, ["dataset", "model", "control", "site"], words=WORDS)
