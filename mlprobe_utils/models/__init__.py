"""Families of architectures, loading, prompts: what is known of a model."""
