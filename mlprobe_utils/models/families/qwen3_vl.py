"""Qwen3-VL: as Qwen2-VL, and a side path, deepstack: some blocks' outputs pass mergers of their own and are added to
the image tokens' states after the first decoder layers. `L` is what a decoder layer computed, before that."""

from mlprobe_utils.models.families.qwen2_vl import Qwen2VL


class Qwen3VL(Qwen2VL):
    model_class = "Qwen3VLForConditionalGeneration"
    vision_tower = (*Qwen2VL.vision_tower, "model.visual.pos_embed")
    connector = (*Qwen2VL.connector, "model.visual.deepstack_merger_list")
    connector_layers = ("model.visual.merger.linear_fc1", "model.visual.merger.linear_fc2")
    side_path = "model.visual.deepstack_merger_list"
