"""Small C functions for what PyTorch's operators do slowly on a CPU, built with the user's own compiler at their first use; never required.

`build` compiles the C files beside it and loads them; `ops` are the functions on tensors, each beside the PyTorch operators that it stands for.
"""
