"""The fixed stations of a diagnosis: where a module ends, as probes read it, the final output, and a reference."""

REFERENCE, OUTPUT = "reference", "final output"
VISION_TOWER, CONNECTOR = "vision tower's end", "connector's end"
IMAGE_TOKENS, LAST_TOKEN = "LLM's end, image tokens", "LLM's end, last token"
PROBED = {  # station -> module and pooling of the probe, at the module's last point
    VISION_TOWER: ("V", "image_mean"),
    CONNECTOR: ("C", "image_mean"),
    IMAGE_TOKENS: ("L", "image_mean"),
    LAST_TOKEN: ("L", "last_token"),
}
STATIONS = (REFERENCE, *PROBED, OUTPUT)
