"""Stages that change weights: pretrain, sft, grpo, one file each, over shared parts (batches, losses, optimizer, checkpoints)."""
