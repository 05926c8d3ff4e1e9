"""The fixed sites of a diagnosis (where a module ends, the final output, a reference) and the names of its modes."""

REFERENCE, OUTPUT = "reference", "final output"
VISION_TOWER, CONNECTOR = "vision tower's end", "connector's end"
IMAGE_TOKENS, LAST_TOKEN = "LLM's end, image tokens", "LLM's end, last token"
PROBED = {  # site -> module and pooling of the probe, at the module's last point
    VISION_TOWER: ("V", "image_mean"),
    CONNECTOR: ("C", "image_mean"),
    IMAGE_TOKENS: ("L", "image_mean"),
    LAST_TOKEN: ("L", "last_token"),
}
SITES = (REFERENCE, *PROBED, OUTPUT)
QUALITY, FIDELITY = "quality limitation", "fidelity loss"
COMPREHENSION, MISALIGNMENT = "comprehension deficit", "misalignment"
MODES = (QUALITY, FIDELITY, COMPREHENSION, MISALIGNMENT)  # failure modes (paper, section 4.2), as the information flows
