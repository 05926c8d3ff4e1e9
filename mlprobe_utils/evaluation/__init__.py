"""The schema of rows, metrics, health scores and diagnosis: functions of arrays and tables."""

__all__ = ["diagnosis", "health", "metrics", "names", "outcomes", "own_rows", "points", "question", "rows", "used"]
