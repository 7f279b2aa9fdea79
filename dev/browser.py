"""A headless Chromium for the tests of the web page. Runs inside the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from .cache import SetUpError, step

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    "win32": (
        "%ProgramFiles%/Google/Chrome/Application/chrome.exe",
        "%ProgramFiles(x86)%/Google/Chrome/Application/chrome.exe",
        "%LocalAppData%/Google/Chrome/Application/chrome.exe",
        "%ProgramFiles(x86)%/Microsoft/Edge/Application/msedge.exe",
    ),
}
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOCK_SECONDS = 300
"""How long another apt may hold the lock."""
MISSING = (
    "No Chromium found, and it could not be installed. Install Chromium or Chrome, "
    "or name its executable in the environment variable CHROME."
)


def chromium() -> Path:
    """Return a Chromium's executable: `CHROME`, an installed one, or a newly installed one.

    Raises SetUpError if there is none and none can be installed.
    """
    if found := _find():
        return found
    reasons = _install()
    if found := _find():
        return found
    raise SetUpError("\n".join([MISSING, *reasons]))


@contextmanager
def open_page(url: str) -> Iterator[Page]:
    """Open a page of a new headless Chromium at `url`. Raises SetUpError without a Chromium."""
    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, headless=True, args=_flags(), chromium_sandbox=not _root()
        )
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.goto(url)
            yield page
        finally:
            browser.close()


def _flags() -> list[str]:
    return [*FLAGS, "--no-sandbox"] if _root() else list(FLAGS)


def _root() -> bool:
    """Whether this is root, for whom Chromium refuses its sandbox."""
    return sys.platform != "win32" and os.geteuid() == 0


def _find() -> Path | None:
    """Find an installed Chromium. Raises SetUpError if `CHROME` is something else."""
    if chosen := os.environ.get("CHROME"):
        if found := shutil.which(chosen):
            return Path(found)
        raise SetUpError(f"CHROME={chosen} is no program. Name Chromium's executable, or unset it.")
    on_path = [found for name in COMMANDS if (found := shutil.which(name))]
    places = [os.path.expandvars(place) for place in PLACES.get(sys.platform, ())]
    candidates = [Path(name) for name in (*on_path, *places)] + [_playwrights_own()]
    return next((path for path in candidates if path.is_file()), None)


def _playwrights_own() -> Path:
    """Return where playwright keeps the Chromium of `playwright install`."""
    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path)


def _install() -> list[str]:
    """Install playwright's own download; else, on Debian as root, the distribution's package.

    Returns why each command that failed did so.
    """
    commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if _root() and shutil.which("apt-get"):
        apt = ["apt-get", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]
        commands += [[*apt, "update"], [*apt, "install", "--yes", "chromium"]]
    reasons = []
    with step("Browser: installing Chromium"):
        for command in commands:
            done = subprocess.run(
                command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            if _find():
                break
            if done.returncode:
                end = "\n".join(done.stdout.strip().splitlines()[-5:])
                reasons.append(f"`{' '.join(command)}` ended with {done.returncode}:\n{end}")
    return reasons
