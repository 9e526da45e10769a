"""A real Chromium on ComfyUI's own page: for the browser tests, the examples and the screenshots.

Needs playwright's Python package; the browser itself is the machine's or one that Playwright
installed.
"""
