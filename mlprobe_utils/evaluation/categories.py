"""Who is compared in the paper's figure 1: categories of traditional classifiers, and MLLMs."""

CATEGORIES = ("CNN", "MLP", "ViT", "hybrid")  # in the order of the figure
MLLM, TRADITIONAL = "MLLM", "all traditional"
