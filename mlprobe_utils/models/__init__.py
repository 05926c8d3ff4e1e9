"""Families of architectures, loading, prompts: what is known of a model."""

__all__ = ["adapters", "encoding", "families", "identity", "loading", "settings"]
