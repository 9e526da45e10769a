"""Test-only nodes: what other packs do with a LORA_STACK, each in its shortest form."""

import comfy.sd
import comfy.utils
import folder_paths

STACK = ("LORA_STACK",)


class Anything(str):
    """The type that many packs declare for "any type"."""

    def __ne__(self, other):
        return False


class TestOtherApplier:
    """Applies what it finds by its installed name, and says nothing of the rest."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "apply", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "lora_stack": STACK}}

    def apply(self, model, lora_stack):
        for name, strength, _ in lora_stack:
            path = folder_paths.get_full_path("loras", name)
            if path is not None:
                file = comfy.utils.load_torch_file(path, safe_load=True)
                model, _ = comfy.sd.load_lora_for_models(model, None, file, strength, 0)
        return (model,)


class TestOtherStacker:
    """Adds nothing to a stack."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "stack", STACK

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"lora_stack": STACK}}

    def stack(self, lora_stack=None):
        return ([tuple(entry) for entry in lora_stack or ()],)


class TestReroute:
    """Hands on anything, behind an output that is nobody's business."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "hand_on", (["a", "b"], Anything("*"))

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (Anything("*"),)}}

    @classmethod
    def VALIDATE_INPUTS(cls, **_):
        return True

    def hand_on(self, value):
        return ("a", value)


NODES = (TestOtherApplier, TestOtherStacker, TestReroute)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES}
