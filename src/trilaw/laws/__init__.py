"""Scaling laws: what compute buys in pre-training, in post-training, at test time, and where the next unit should go. No torch."""
