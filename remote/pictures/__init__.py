"""Pictures on their way out (inside a request, or by their address) and in (from the storage)."""
