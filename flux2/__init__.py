"""The rules of the FLUX.2 models: variants, sizes, references, sampling. Python and torch only."""
