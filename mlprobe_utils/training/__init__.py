"""Fine-tuning, the vision tower alone, and generated answers."""

__all__ = ["fine_tuning", "prediction", "settings", "vision_classifier"]
