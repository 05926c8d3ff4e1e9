"""Image sets: from a release as its authors published it to a manifest with one row an image."""
