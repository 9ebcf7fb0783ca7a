"""The local sampler: continuous batching over a cache of keys and values, on the weights that the trainer holds."""

from trilaw.engine.engine import Engine

__all__ = ["Engine"]
