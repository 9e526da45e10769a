"""What ComfyUI shows of this pack before a user has made anything: example workflows, blueprints.

All of it is written by ``scripts/draw`` from the definitions here, through the real page.
"""
