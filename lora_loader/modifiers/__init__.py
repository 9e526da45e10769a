"""What multiplies a LoRA's scale: a schedule over the steps and pictures, a region, the blocks.

Torch only, no host. ``text`` reads what users write, ``weights`` says what a run makes of it.
"""
