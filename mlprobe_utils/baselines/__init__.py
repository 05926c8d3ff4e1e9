"""Traditional image classifiers beside the MLLMs (paper, figure 1): built by card, trained on the same images.

A baseline is a card in data/baselines. `python -m mlprobe_utils baselines BASELINE --datasets D ...` trains one.
Nothing outside of this package imports torch through it but who asks for a training: the card alone is read by pages.
"""
