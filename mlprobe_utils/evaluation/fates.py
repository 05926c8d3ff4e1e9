"""What happened to each test image between the vision tower and the answer."""

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import MODULES, POOLING_NAMES, flow_order, is_point, on_side_path
from mlprobe_utils.evaluation.rows import OPTION, options_of

CORRECT, UNPARSED, READ_OUT, NEVER = "correct", "unparsed", "read-out", "never"
FATES = {
    CORRECT: "answered correctly",
    READ_OUT: "decodable at the LLM's end, answered incorrectly",
    "L": "lost in the LLM",
    "C": "lost in the connector",
    "V": "lost in the vision tower",
    NEVER: "decodable nowhere",
    UNPARSED: "answer without an option",
}
MEAN, LENS, ANSWER = "image_mean", "lens", "answer"
SERIES = [*POOLING_NAMES, LENS, ANSWER]
FULL = 255  # a probability of 1, for the explorer


def decoded(probed: pd.DataFrame, predicted: pd.DataFrame, lens: pd.DataFrame | None = None) -> pd.DataFrame:
    """Probability of each option at every point, on the test images of one state of a model (a stage, one run): index
    image; columns (pooling, LENS or ANSWER; point; option), in the order the data flows. Probes of several seeds are
    averaged. Raises InputError for rows without test images, or of several states."""
    frames = [probed, predicted.assign(pooling=ANSWER, point=ANSWER), *([] if lens is None else [lens])]
    rows = pd.concat([frame.assign(pooling=LENS) if frame is lens else frame for frame in frames])
    rows = rows[rows["split"] == "test"]
    if rows.empty:
        raise InputError("no rows of test images: choose a model, data set and stage that were run")
    if several := [column for column in ("model", "dataset", "stage") if rows[column].nunique() > 1]:
        raise InputError(f"these rows belong to several states of a model: choose one value of {several[0]}")
    options = [OPTION + option for option in options_of(rows)]
    means = rows.groupby(["pooling", "point", "image"])[options].mean().rename(columns=lambda name: name[len(OPTION) :])
    order = sorted(set(means.index.droplevel("image")), key=_order)
    return pd.concat({key: means.loc[key] for key in order}, axis=1)


def answers_to(table: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """The prediction rows of the images of `decoded`, by image and in their order."""
    return predicted[predicted["split"] == "test"].set_index("image").loc[table.index]


def _order(series: tuple[str, str]) -> tuple:
    pooling, point = series
    return SERIES.index(pooling), flow_order(point) if is_point(point) else ()


def fates(table: pd.DataFrame, answers: pd.DataFrame) -> pd.Series:
    """image -> its fate (of FATES). `table`: of `decoded`; `answers`: prediction rows of the same state, by image. An
    image counts as lost behind the last module at whose end a probe of any pooling decodes its class."""
    correct = right(table, answers["label"]).drop(columns=[LENS, ANSWER], level=0, errors="ignore")
    points = [point for point in correct[MEAN] if not on_side_path(point)]
    if missing := [name for module, name in MODULES.items() if module not in {point[0] for point in points}]:
        raise InputError(f"there are no probes of the image tokens in the {missing[0]}: probe it first")
    ends = {point[0]: point for point in points}  # the last of each module
    at_end = {module: correct.xs(end, axis=1, level=1).any(axis=1) for module, end in ends.items()}
    early = correct[[key for key in correct if key[1] in points and key[1][0] == "V"]].any(axis=1)
    reached = [answers["parsed"].isna(), answers["parsed"] == answers["label"], *(at_end[m] for m in "LCV"), early]
    return pd.Series(np.select(reached, [UNPARSED, CORRECT, READ_OUT, "L", "C", "V"], NEVER), table.index)


def right(table: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """Whether the most probable option is the true one: columns (pooling, point) of `decoded`."""
    series, options, probabilities = _apart(table)
    predicted = options[probabilities.argmax(axis=2)]
    return pd.DataFrame(predicted == labels.to_numpy()[:, None], table.index, pd.MultiIndex.from_tuples(series))


def state(table: pd.DataFrame, answers: pd.DataFrame, fate: pd.Series) -> dict:
    """What the explorer draws of one state of a model: its series, the fate and the text of every image, in the order
    of `table`, and of each series the options' probabilities of all images in a row (`p`), in 255ths. The most probable
    option stays it. `fate`: of `fates`, with the same `table` and `answers`."""
    series, _, probabilities = _apart(table)
    texts, places = np.unique(answers["text"].str.strip(), return_inverse=True)
    return {
        "series": series,
        "p": [_whole(probabilities[:, place]).ravel().tolist() for place in range(len(series))],
        "fates": [[*FATES].index(own) for own in fate],
        "texts": texts.tolist(),
        "text": places.tolist(),
    }


def compared(table: pd.DataFrame, answers: pd.DataFrame, drawn: dict) -> dict:
    """What the explorer shows of a model beside another one: its fates, and the true option's probability in the answer
    and, by the mean of the image tokens, at every point. `drawn` is the `state`."""
    _, options, _ = _apart(table)
    true = np.arange(len(table)), pd.Index(options).get_indexer(answers["label"])
    path = [place for place, (pooling, _) in enumerate(drawn["series"]) if pooling in (MEAN, ANSWER)]
    curves = [np.reshape(drawn["p"][place], (-1, len(options)))[true].tolist() for place in path]
    return {"points": [drawn["series"][place][1] for place in path], "p": curves, "fates": drawn["fates"]}


def _apart(table: pd.DataFrame) -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """The series of `decoded`, the options, and probabilities [images, series, options]."""
    series, options = list(dict.fromkeys(key[:2] for key in table.columns)), table.columns.unique(2).to_numpy()
    return series, options, table.to_numpy().reshape(len(table), len(series), len(options))


def _whole(probabilities: np.ndarray) -> np.ndarray:
    whole, rows = np.rint(FULL * probabilities).astype(int), np.arange(len(probabilities))
    first = rows, probabilities.argmax(axis=1)
    others = whole.copy()
    others[first] = -1
    whole[first] = np.maximum(whole[first], others.max(axis=1) + 1)
    return whole
