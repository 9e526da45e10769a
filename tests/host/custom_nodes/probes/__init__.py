"""Test-only nodes: look inside what flows through a graph, and make what no stock node makes."""

import copy
import logging
import os
import time

import comfy.model_management
import folder_paths
import torch
from safetensors.torch import save_file


class TestSaveConditioning:
    """Writes the text and the reference latents of a CONDITIONING into the output folder."""

    CATEGORY, OUTPUT_NODE, FUNCTION, RETURN_TYPES = "test", True, "save", ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "name": ("STRING", {})}}

    def save(self, conditioning, name):
        tensors = {}
        for index, (text, extras) in enumerate(conditioning):
            tensors[f"text_{index}"] = text.contiguous()
            for number, latent in enumerate(extras.get("reference_latents", []), 1):
                tensors[f"reference_{index}_{number}"] = latent.contiguous()
        save_file(tensors, os.path.join(folder_paths.get_output_directory(), f"{name}.safetensors"))
        return {"ui": {"text": (str(sorted(tensors)),)}}


class TestNaNImage:
    """A picture with one NaN pixel."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        image = torch.full((1, 96, 96, 3), 0.5)
        image[0, 40, 40, 0] = float("nan")
        return (image,)


class TestEmptyLatent:
    """An empty SD latent as packs made it before latents said their scale."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        sides = {side: ("INT", {}) for side in ("width", "height", "batch_size")}
        return {"required": sides}

    def make(self, width, height, batch_size):
        return ({"samples": torch.zeros(batch_size, 4, height // 8, width // 8)},)


class TestLoraStack:
    """A LORA_STACK as another pack would hand it over: given as JSON."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("LORA_STACK",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"json": ("STRING", {})}}

    def make(self, json):
        import json as module

        return (module.loads(json),)


class TestCountEncodes:
    """Hands on a CLIP and a VAE that log each encode, with the text or the picture's size."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "wrap", ("CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip": ("CLIP",), "vae": ("VAE",)}}

    def wrap(self, clip, vae):
        clip, vae = clip.clone(), copy.copy(vae)
        encode_text, encode_picture = clip.encode_from_tokens_scheduled, vae.encode
        tokenize = clip.tokenize

        def count_text(tokens, *args, **kwargs):
            logging.info("COUNTED text %s", tokens.pop("counted"))
            return encode_text(tokens, *args, **kwargs)

        def count_picture(pixels):
            logging.info("COUNTED picture %dx%d", pixels.shape[2], pixels.shape[1])
            return encode_picture(pixels)

        clip.tokenize = lambda text: tokenize(text) | {"counted": text}
        clip.encode_from_tokens_scheduled = count_text
        vae.encode = count_picture
        return (clip, vae)


class FoldedPixels:
    """An encoder without a network: each cell of 16 x 16 pixels, folded into 128 sums of six.

    Every pixel is in exactly one number, so that a shift, a crop or another filter shows.
    """

    def encode(self, pixels, **_):
        cells = torch.nn.functional.pixel_unshuffle(pixels, 16)
        return cells.unflatten(1, (128, 6)).sum(2)


class TestQuickVae:
    """The host's VAE object with its network taken out: large pictures in a moment."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "wrap", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"vae": ("VAE",)}}

    def wrap(self, vae):
        vae = copy.copy(vae)
        vae.first_stage_model = FoldedPixels()
        return (vae,)


class TestTextList:
    """A list of texts, one a line, as a node that reads prompts from a file gives them."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("STRING",)
    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {})}}

    def make(self, text):
        return (text.splitlines(),)


class TestHold:
    """Hands a picture on once a file is there; an empty file makes it fail instead."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "hold", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "file": ("STRING", {})}}

    def hold(self, image, file):
        path = os.path.join(folder_paths.get_input_directory(), os.path.basename(file))
        while not os.path.exists(path):
            time.sleep(0.05)
        if not os.path.getsize(path):
            raise RuntimeError("a node behind it failed")
        return (image,)


class TestDirectSampler:
    """Steps by hand, as some packs' samplers do: loads the MODEL and calls the diffusion model.

    With ``runs`` off it loads the MODEL and never runs it, as who has a copy of the weights.
    """

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "sample", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",), "positive": ("CONDITIONING",), "latent": ("LATENT",),
                "runs": ("BOOLEAN", {}),
            }
        }  # fmt: skip

    def sample(self, model, positive, latent, runs):
        comfy.model_management.load_models_gpu([model])
        network = model.model.diffusion_model
        dtype, device = model.model.get_dtype_inference(), model.load_device
        noise = torch.Generator().manual_seed(5)
        x = torch.randn(latent["samples"].shape, generator=noise).to(device, dtype)
        text = positive[0][0].to(device, dtype)
        guidance = torch.full((len(x),), 2.5, device=device, dtype=dtype)
        with torch.no_grad():
            for now, then in ((1.0, 0.7), (0.7, 0.0)) if runs else ():
                time_of = torch.full((len(x),), now, device=device, dtype=dtype)
                x = x + (then - now) * network.forward(x, time_of, text, guidance=guidance)
        return ({"samples": x.float().cpu()},)


class TestCompileInPlace:
    """Compiles the diffusion model where it stands, or as an object patch of the MODEL."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "compile", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "in_place": ("BOOLEAN", {})}}

    def compile(self, model, in_place):
        model = model.clone()
        compiled = torch.compile(model.get_model_object("diffusion_model"), backend="eager")
        if in_place:
            model.model.diffusion_model = compiled
        else:
            model.add_object_patch("diffusion_model", compiled)
            comfy.model_management.load_models_gpu([model])
        return (model,)


NODES = (TestSaveConditioning, TestNaNImage, TestLoraStack, TestCountEncodes, TestQuickVae)
NODES += (TestTextList, TestHold, TestDirectSampler, TestEmptyLatent, TestCompileInPlace)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES}
