"""The one door to the outside: HTTP to public addresses, and resumable, verified downloads."""
