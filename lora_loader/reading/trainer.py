"""Which program wrote a file, as far as it tells: for the report, never for the maths."""

from .header import Header


def trainer_of(header: Header) -> str:
    """The trainer's or exporter's name, or "" where nothing tells."""
    metadata = header.metadata
    keys = list(header.tensors)
    software = metadata.get("software", "")
    if "ai-toolkit" in software or "training_info" in metadata:
        return "ai-toolkit"
    if "ot_revision" in metadata or "ot_branch" in metadata:
        return "OneTrainer"
    module = metadata.get("ss_network_module", "")
    if "flux_2" in module or metadata.get("modelspec.architecture", "").startswith("Flux.2-"):
        return "musubi-tuner"
    if module:
        return "kohya"
    if "lycoris_config" in metadata or "global_step" in metadata:
        return "SimpleTuner"
    if "lora_adapter_metadata" in metadata:
        return "diffusers"
    first = keys[0] if keys else ""
    if any(".default.weight" in key for key in keys[:50]):
        return "DiffSynth-Studio"
    if first.startswith("base_model.model."):
        return "PEFT"
    if first.startswith("lycoris_"):
        return "LyCORIS"
    if first.startswith("lora_unet_"):
        return "kohya naming"
    return ""
