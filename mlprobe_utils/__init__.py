"""Helpers of the analysis book: cards, image sets, fine-tuning, extraction, probes, scores, charts.

Importing the package makes torchvision importable beside a CPU build of torch; it does not import torch itself.
"""

from mlprobe_utils import torchvision_schemas

torchvision_schemas.install()
