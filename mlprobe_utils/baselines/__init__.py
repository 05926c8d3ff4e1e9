"""Traditional image classifiers beside the MLLMs (paper, figure 1): built by card, trained on the same images."""
