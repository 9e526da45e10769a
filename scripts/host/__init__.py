"""A real ComfyUI with tiny FLUX.2 models, for the demo and the tests.

``versions`` and ``environment`` need the standard library only: they make the virtual environment
that everything else here runs in.
"""
