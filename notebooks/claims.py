# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The paper's claims
#
# **Question.** Which of the paper's claims does this run confirm, which does it refute, and what remains open?
#
# Every claim of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) that this book can test: what the numbers that the
# paper publishes support, what this run finds, and what would settle the question. A claim about a direction is confirmed
# if the 95 % interval lies on the claimed side of 0, and refuted if it lies on the other; a claim that there is no change
# to speak of is judged in the same way by a margin; a claim that something occurs is confirmed where it is
# [significant](../book/glossary.md#significant). Everything else cannot be decided here. **A run of miniatures on phantoms
# confirms or refutes nothing about the paper's own models**: it shows what the method of each claim can and cannot see.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals())
chapter.opening()

# %% tags=["hide-input"]
from mlprobe_utils.analysis import certainty, claims
from mlprobe_utils.analysis.claims import by_count, by_margin, by_sign
from mlprobe_utils.pipeline.tested import evaluated
from mlprobe_utils.stats.paired import HIGHER, LOWER, in_words

selected = chapter.selection, chapter.image_sets
findings = {}

# %% [markdown]
# ## Where the findings come from
#
# ### Figure 1: small networks

# %% tags=["hide-input"]
from mlprobe_utils.analysis import baselines
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import bases

whole = chapter.with_baselines()
predicted = results.prediction_rows(chapter.selection)
medical = predicted[~predicted["model"].isin(bases(chapter.models))]
answers = medical[medical["stage"] == "finetuned"]

# %% tags=["hide-input"]
slugs = [card.slug for card in whole.baselines]
networks = baselines.trained(whole.selection, slugs)
towers = results.frozen_tower_rows(chapter.selection)
rule = baselines.OF_PROTOCOL[chapter.protocol.baselines.chosen]
given = whole.baselines, chapter.image_sets, split_rule, rule
against = baselines.claims(
    baselines.comparisons(networks, answers, towers, *given)
)

# %% tags=["hide-input"]
findings["traditional"] = claims.Finding(
    "bars without numbers or intervals",
    f"MLLMs minus networks: {in_words(against, 'difference')} pp",
    by_sign(against["low"].mean(), against["high"].mean(), -1),
)

# %% [markdown]
# ### Section 4.1: curves

# %% tags=["hide-input"]
steps = certainty.steps(evaluated(*selected, certainty.outcomes_of))
tuned = steps[steps["stage"] == "finetuned"].set_index("step")
along, to_connector = "along the vision tower", "to the connector's end"
tower, connector = tuned.loc[[along]], tuned.loc[[to_connector]]
chest = tower["dataset"].str.startswith("chest-xray")
entry, answer_step = tuned.loc[["into the LLM"]], tuned.loc[["to the answer"]]

# %% tags=["hide-input"]
no_numbers = "curves without numbers"
expected = {"tower rises": (~chest, 1), "tower declines": (chest, -1)}
for name, (which, sign) in expected.items():
    own = tower[which]
    ends = own["low"].mean(), own["high"].mean()
    words = f"change along the tower: {in_words(own, 'change')} pp"
    findings[name] = claims.Finding(no_numbers, words, by_sign(*ends, sign))

# %% tags=["hide-input"]
findings["connector"] = claims.Finding(
    no_numbers,
    f"change: {in_words(connector, 'change')} pp "
    f"(margin: {claims.MARGIN:g} pp)",
    by_margin(connector["low"].mean(), connector["high"].mean()),
)

# %% tags=["hide-input"]
for name, own in (("entry", entry), ("answer", answer_step)):
    down = int((own["verdict"] == LOWER).sum())
    up = int((own["verdict"] == HIGHER).sum())
    words = (
        f"significantly lower in {down} and higher in {up} of {len(own)}; "
    )
    words += f"{in_words(own, 'change')} pp on average"
    findings[name] = claims.Finding(no_numbers, words, by_count(down))

# %% [markdown]
# ### Section 4.2: failure modes

# %% tags=["hide-input"]
from mlprobe_utils.analysis import diagnosis_tables as tables
from mlprobe_utils.stats.intervals import RECIPE

probed = results.end_rows(chapter.selection).query("stage == 'finetuned'")
usual = tables.usual_losses(chapter.selection)
rows = probed, predicted, results.reference_rows(chapter.selection)
judged = tables.diagnoses(*rows, *selected[1:], split_rule, usual, [RECIPE])
modes = tables.in_short(judged)["main"]

# %% tags=["hide-input"]
counts = ", ".join(f"{m} {n}" for m, n in modes.value_counts().items())
findings["modes"] = claims.Finding(
    "no threshold, no count",
    f"detected in {modes.notna().sum()} of {len(modes)} pairs of model and "
    f"data set{': ' * bool(counts)}{counts}",
    by_count(int(modes.notna().sum())),
)

# %% [markdown]
# ### Section 4.3: comparisons

# %% tags=["hide-input"]
from mlprobe_utils.analysis import comparisons
from mlprobe_utils.analysis.health import profile
from mlprobe_utils.evaluation.health import health_by_run
from mlprobe_utils.pipeline import scoring

penalty = chapter.protocol.health.penalty
health = health_by_run(scoring.probe_scores(chapter.selection), penalty)

# %% tags=["hide-input"]
from mlprobe_utils.pipeline.cards import paper_sizes, sizes
from mlprobe_utils.pipeline.published import paper_profiles

profiles = profile(health, scoring.output_scores(chapter.selection))
adapted = profiles.query("stage == 'finetuned'")
of_bases = adapted["model"].isin(bases(chapter.models))
adapted = chapter.named(adapted[~of_bases])

# %% tags=["hide-input"]
by_size = sizes(chapter.models).rename(chapter.names)
here = comparisons.summary(adapted, by_size)
paper = comparisons.summary(paper_profiles(), paper_sizes())

# %% tags=["hide-input"]
verdicts_here = claims.of_comparisons(adapted, by_size)
both = zip(paper.values(), here.values(), strict=True)
names = ["steadiest", "health", "poor", "poor", "size", "order"]
for name, words in zip(names, both, strict=True):
    finding = claims.Finding(*words, verdicts_here[name])
    findings.setdefault(name, finding)

# %% [markdown]
# ### Section 3.3: the score

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.health import health_score

flat = health_score([80, 80, 80], penalty)
dip = health_score([80, 60, 80], penalty)

# %% tags=["hide-input"]
findings["dip"] = claims.Finding(
    f"a dip, 80 → 60 → 80, scores {dip:.1f}, a flat curve {flat:.1f}",
    "the same: it follows from the formula",
    claims.REFUTED if dip > flat else claims.CONFIRMED,
)

# %% [markdown]
# ### Section 5: discussions

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.analysis import adaptation
from mlprobe_utils.pipeline.cards import PUBLISHED

pairs = adaptation.pairs(chapter.models)
gains = adaptation.gains(predicted, pairs, *selected[1:], split_rule)

# %% tags=["hide-input"]
tuned_gains = gains[gains["stage"] == "finetuned"]
of_sets = tuned_gains[tuned_gains["dataset"] != adaptation.MEAN]
of_sets = of_sets.drop_duplicates(adaptation.PAIR, keep="last")

# %% tags=["hide-input"]
power = pd.read_csv(PUBLISHED / "recomputed/gains_detectable.csv")
tenth = power.loc[power["disagreement"] == "10 %", "mean of all"].max()
findings["adaptation"] = claims.Finding(
    f"the largest gain would be significant {tenth:.0f} times in 100",
    f"gain: {in_words(of_sets, 'gain')} pp (margin: {claims.MARGIN:g} pp)",
    by_margin(of_sets["low"].mean(), of_sets["high"].mean()),
)

# %% [markdown] tags=["needs-frozen-vision-tower"]
# #### Frozen vision tower

# %% tags=["hide-input"]
from mlprobe_utils.analysis import vision_tower

part = chapter.discussion("frozen-vision-tower")
of_towers = part.selection, part.image_sets, vision_tower.outcomes_of_towers
moved = vision_tower.changes(evaluated(*of_towers))
moved = moved[moved["metric"] == "accuracy"]
cells = pd.read_csv(PUBLISHED / "recomputed/table2_in_images.csv")

# %% tags=["hide-input"]
most = int(cells["images"].abs().max())
findings["frozen"] = claims.Finding(
    f"differences of at most {most} images, without intervals",
    f"frozen minus adapted: {in_words(moved, 'change')} pp",
    by_sign(moved["low"].mean(), moved["high"].mean(), 1),
)

# %% [markdown] tags=["needs-training-paradigms"]
# #### Vision tower alone

# %% tags=["hide-input"]
from mlprobe_utils.analysis import vision_tower as towers_alone

alone = chapter.discussion("training-paradigms")
of_ways = alone.selection, alone.image_sets
found = towers_alone.differences(
    evaluated(*of_ways, towers_alone.outcomes_of_paradigms)
)
found = found[found["reference"] == towers_alone.FINE_TUNED]

# %% tags=["hide-input"]
table3 = pd.read_csv(PUBLISHED / "recomputed/table3_cells.csv")
odd = int(table3["correct"].isna().sum())
findings["alone"] = claims.Finding(
    f"{odd} of {len(table3)} cells are no whole number of images",
    f"tower alone minus MLLM: {in_words(found, 'difference')} pp",
    by_sign(found["low"].mean(), found["high"].mean(), 1),
)

# %% [markdown]
# #### Comprehension and utilization

# %% tags=["hide-input"]
from mlprobe_utils.analysis import comprehension

readings = evaluated(*selected, comprehension.outcomes_of)
curves = comprehension.differences(readings)
curves = curves[curves["stage"] == "finetuned"]
best = comprehension.ceilings(readings).query("stage == 'finetuned'")

# %% tags=["hide-input"]
at_start = curves[curves["point"] == "L.00"]
findings["late"] = claims.Finding(
    no_numbers,
    f"last token minus image tokens at L.00: {at_start['value'].mean():+.1f} "
    f"pp; significantly below in {(at_start['verdict'] == comprehension.BELOW).sum()} of {len(at_start)}",
    by_count(int((at_start["verdict"] == comprehension.BELOW).sum())),
)

# %% tags=["hide-input"]
above = int((best["verdict"] == comprehension.ABOVE).sum())
words = f"last token minus image tokens: {in_words(best, 'difference')} pp; "
words += f"significantly above in {above} of {len(best)}"
verdict = claims.REFUTED if above else claims.OPEN
findings["ceiling"] = claims.Finding(no_numbers, words, verdict)

# %% tags=["hide-input", "answer"]
from mlprobe_utils.book.chapter import answer

verdicts = claims.table(findings)
number = verdicts["verdict here"].value_counts().items()
counts_here = [f"{count} {verdict}" for verdict, count in number]
answer(f"Of {len(verdicts)} claims: {', '.join(counts_here)}.")

# %% tags=["hide-input", "answer"]
from mlprobe_utils.plots.tables import show

show(verdicts)

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("claims")
