"""Gemma 3: a SigLIP vision tower; the connector pools its tokens, norms them and projects them by one bare matrix."""

from mlprobe_utils.models.families.base import Family


class Gemma3(Family):
    model_class = "Gemma3ForConditionalGeneration"
    # image tokens attend to each other in both directions: the types say which they are
    inputs = (*Family.inputs, "token_type_ids")
    vision_tower = ("model.vision_tower",)
    vision_blocks = "model.vision_tower.encoder.layers"
    connector = ("model.multi_modal_projector",)
    connector_layers = ("model.multi_modal_projector",)  # its matrix is no module
