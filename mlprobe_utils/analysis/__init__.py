"""What a chapter computes from a run's rows: a module a subject."""
