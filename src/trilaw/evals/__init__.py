"""Evaluation: problems of a task, samples of a model, estimates with intervals. No torch: the sampler comes from outside."""
