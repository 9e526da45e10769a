"""What this pack serves to its own parts of ComfyUI's page."""
