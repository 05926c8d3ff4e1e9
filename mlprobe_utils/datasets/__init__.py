"""Image sets: from a release as its authors published it to a manifest with one row per image."""

__all__ = ["components", "controls", "file_tree", "folders", "image_set", "manifest", "own_images", "settings"]
