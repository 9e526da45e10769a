"""Getting a LoRA: an installed name, a hub repository, Civitai or a link -> a verified file."""
