"""Which Chromium there is on this machine, and how it is started."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
# No sandbox: containers and root have none. The rest keeps the browser off the network.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # A page answered by a test has no address, and Chromium then refuses it the loopback.
    "--disable-features=LocalNetworkAccessChecks",
)
HOW_TO_GET_ONE = (
    "no Chromium found: install one (apt install chromium, or python -m playwright install "
    "chromium), or name it in CHROMIUM_PATH"
)


class NoChromium(RuntimeError):
    """There is no browser to be had; the message says how to get one."""


def find_chromium(playwright: Playwright) -> str:
    """The path of a Chromium: CHROMIUM_PATH, the machine's own, or Playwright's.

    Raises NoChromium.
    """
    named = os.environ.get("CHROMIUM_PATH")
    if named:
        if not Path(named).is_file():
            raise NoChromium(f"CHROMIUM_PATH names no file: {named}")
        return named
    candidates = [found for found in map(shutil.which, COMMANDS) if found]
    candidates += [*PLACES, playwright.chromium.executable_path]
    for candidate in candidates:
        if Path(candidate).is_file():
            return candidate
    raise NoChromium(HOW_TO_GET_ONE)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running headless browser. Raises NoChromium when there is none or it does not start."""
    with sync_playwright() as playwright:
        path = find_chromium(playwright)
        try:
            browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS])
        except Error as error:
            raise NoChromium(f"{path} does not start: {error.message.splitlines()[0]}") from error
        try:
            yield browser
        finally:
            browser.close()
