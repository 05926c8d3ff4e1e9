"""Qwen2.5-VL: as Qwen2-VL, but blocks work on tokens sorted by windows inside each image, which leaves means alone."""

from mlprobe_utils.models.families.qwen2_vl import Qwen2VL


class Qwen2_5_VL(Qwen2VL):
    model_class = "Qwen2_5_VLForConditionalGeneration"
