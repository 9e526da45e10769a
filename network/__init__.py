"""The one door to the outside: HTTP to public addresses, and resumable, verified downloads.

client.HttpClient for a GET as a stream or as bytes and for the one POST, with client.Limits;
download.download for a file on disk, address.AddressPolicy for what may be reached, errors for
everything that can go wrong, files for writing what survives a crash.
"""
