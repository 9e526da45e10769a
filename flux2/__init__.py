"""The rules of the FLUX.2 models: variants, sizes, references, sampling, regions of a picture."""
