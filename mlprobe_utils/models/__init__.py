"""Families of architectures, loading, prompts: what is known of a model."""

__all__ = ["adapters", "counting", "encoding", "identity", "loading", "settings"]
