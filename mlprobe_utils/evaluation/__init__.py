"""The schema of rows, metrics, health scores and diagnosis: functions of arrays and tables."""

__all__ = [
    "answers",
    "categories",
    "claims",
    "control_names",
    "diagnosis",
    "health",
    "metrics",
    "orders",
    "outcomes",
    "own_rows",
    "points",
    "question",
    "rows",
    "settings",
    "sites",
]
