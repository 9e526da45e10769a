"""Test-only node: what the weights of a MODEL are once its patches are applied."""

import os

import folder_paths
from safetensors.torch import save_file


class TestDumpPatchedWeights:
    """Writes every patched weight, as the host itself would patch it, into the output folder."""

    CATEGORY, OUTPUT_NODE, FUNCTION, RETURN_TYPES = "test", True, "dump", ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "name": ("STRING", {})}}

    def dump(self, model, name):
        patched = {
            key: model.patch_weight_to_device(key, return_weight=True).contiguous()
            for key in model.patches
        }
        place = os.path.join(folder_paths.get_output_directory(), os.path.basename(name))
        save_file(patched, f"{place}.safetensors")
        return {"ui": {"text": (f"{len(patched)} patched weights",)}}


NODE_CLASS_MAPPINGS = {"TestDumpPatchedWeights": TestDumpPatchedWeights}
