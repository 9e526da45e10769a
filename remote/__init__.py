"""RunComfy's Model API: paid once, never lost. No ComfyUI import."""
