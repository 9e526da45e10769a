"""A region of a picture, edited and put back: torch, numpy, scipy and Pillow; no ComfyUI."""
