"""The demo: one edit of two photographs, with each LoRA and with both, and the sheet of it all.

``trial`` is what is edited with what; ``graph`` the graph; ``series`` its runs; ``sheet`` the one
picture at the end; ``remote`` the same through RunComfy's API. Where the weights come from:
``trial.EMBEDDED`` (tiny ones, made here), ``survey`` and ``choose`` (a models folder), ``offer``
and ``fetching`` (klein 4B from the hub), on the machine that ``machine`` looks at.
"""
