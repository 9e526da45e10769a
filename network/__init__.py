"""The one door to the outside: HTTP to public addresses, and resumable, verified downloads.

public_http.open_stream / fetch_bytes for a GET, download.download for a file on disk,
address.AddressPolicy for what may be reached, errors for everything that can go wrong.
"""
