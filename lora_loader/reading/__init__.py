"""Understanding a LoRA: header, names, scales and training of a file, and what of it fits."""
