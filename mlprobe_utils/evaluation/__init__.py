"""The schema of rows, metrics, health scores and diagnosis: functions of arrays and tables."""
