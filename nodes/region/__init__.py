"""FLUX.2 Region Crop and FLUX.2 Region Paste: an edit of a region, and nothing else changed."""

from ..host import io

RegionType = io.Custom("FLUX2_REGION")
"""A ``flux2.region.crop.Region``."""
