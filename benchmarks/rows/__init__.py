"""The rows, one file for each area."""
