"""Everything between "a LoRA somewhere" and "weights changed". Only ``patch`` knows ComfyUI."""
