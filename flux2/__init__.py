"""The rules of the FLUX.2 models: shapes, sizes, references, schedule. Python and torch only."""
