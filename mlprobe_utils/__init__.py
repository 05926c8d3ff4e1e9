"""Helpers of the analysis book: cards, image sets, fine-tuning, extraction, probes, scores, charts.

Importing the package makes torchvision importable beside a CPU build of torch; it does not import torch itself.
"""

import sys

from mlprobe_utils.models import torchvision_schemas

torchvision_schemas.install()
# jsonschema would make a grammar with it at import, most of a second in every process, for addresses in no schema here
sys.modules.setdefault("rfc3987_syntax", None)
