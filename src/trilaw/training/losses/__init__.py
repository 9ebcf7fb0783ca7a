"""Losses, one a file: functions of token log-probabilities that return a sum over a given global count."""
