"""Exact verifiers for model-written text: bounded parsing, nothing is ever evaluated as code."""
