"""The Model API itself: the calls, and what its answers mean."""
