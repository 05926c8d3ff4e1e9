"""Fine-tuning, the vision tower alone, and generated answers."""
