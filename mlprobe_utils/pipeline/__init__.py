"""Cards, artefacts and the steps that make them: all that knows `outputs/` and `data/`."""
