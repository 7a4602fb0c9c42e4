"""A real browser for tests: opens a page from disk and fails if the page complains or asks for anything else."""

import shutil
from contextlib import contextmanager

from playwright.sync_api import sync_playwright

# No sandbox, because tests may run as root in a container; nothing that calls home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
# Drawing a page takes moments unless it never comes.
PATIENCE_MS = 30_000


def executable():
    """Debian's Chromium, or another one on the path."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise AssertionError("the tests need Chromium: apt-get install chromium")


@contextmanager
def chromium():
    """One browser; `opened` opens pages in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser, path, width=1280, height=900, scheme="light", media=None, script=True, touch=False, clean=True):
    """Opens a file as a page and, at the end, checks that it wrote no error and requested nothing but itself.

    `page.complaints` and `page.requests` hold what was seen; `clean=False` leaves their check to the caller."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=script, has_touch=touch,
        # A page that is still scrolling moves under the pointer.
        reduced_motion="reduce",
        # Nothing may leave the machine even if the page tries.
        offline=True,
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.complaints, page.requests = [], []
    page.on("console", lambda message: message.type in ("error", "warning") and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    if media:
        page.emulate_media(media=media)
    address = path.resolve().as_uri()
    page.goto(address)
    try:
        yield page
        if clean:
            assert page.complaints == []
            assert page.requests == [address]
    finally:
        context.close()
