"""Architectures and weights: Hugging Face folders and GGUF files in, one plain PyTorch implementation, folders out."""
