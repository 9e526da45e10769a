"""What an adapter does to a weight: added to it, or a function of it. Torch only, no host."""
