"""RunComfy's Model API: paid once, never lost. No ComfyUI import.

``run.Run`` is the front door: the user's settings in, pictures out. ``plan`` says what will be
sent, by the tables of ``models``; ``job`` is the life of one paid request, written down by
``journal``; ``api`` and ``pictures`` are the two sides that touch the web.
"""
