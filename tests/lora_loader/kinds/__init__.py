"""Every kind of FLUX.2 LoRA file, made as its producer makes it, with the change it stands for."""
