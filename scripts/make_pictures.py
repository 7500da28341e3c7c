"""Make the README's pictures, by the commands that it names and a screenshot of the page.

python scripts/make_pictures.py [FOLDER] [--quick]

FOLDER takes the place of scripts/pictures. Needs Chromium, and playwright: pip install playwright.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _arguments import make_parser, need

FOLDER = Path(__file__).parent / "pictures"
PLOTS = {
    "beliefs.gif": ("beliefs", "strong", "--image", "0"),
    "states.png": ("states", "reference", "--image", "0"),
    "mistakes.png": ("mistakes", "strong", "--count", "10"),
}
# Two strokes of a 4, as shares of the canvas.
STROKES = [(0.45, 0.15), (0.27, 0.55), (0.72, 0.55)], [(0.62, 0.3), (0.6, 0.88)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="states.png and page.png alone")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to write")
    given = parser.parse_args(arguments)
    need("playwright", "playwright")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: needs Chromium, which is not installed: apt install chromium")
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in ["states.png"] if given.quick else PLOTS:
        path = given.folder / name
        command = [sys.executable, "-m", "rnn_mnist.plot", *PLOTS[name], "-o", path]
        subprocess.run(command, check=True)
        if path.suffix == ".png":
            compact(path)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "digit.html"
        command = [sys.executable, "-m", "rnn_mnist.export", "page", "-o", page]
        subprocess.run(command, check=True)
        photograph(browser, page, given.folder / "page.png")
    compact(given.folder / "page.png")


def compact(path: Path) -> None:
    """Keep 128 colours, which nobody tells from all."""
    import PIL.Image

    picture = PIL.Image.open(path).convert("RGB")
    picture.quantize(128, dither=PIL.Image.Dither.NONE).save(path, optimize=True)


def photograph(browser: str, page: Path, path: Path) -> None:
    """Draw a digit on the page and save what it then looks like."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(
            viewport={"width": 1000, "height": 740}, reduced_motion="reduce", color_scheme="light"
        )
        tab.goto(page.as_uri())
        box = tab.locator("canvas").first.bounding_box()
        assert box is not None
        for stroke in STROKES:
            points = [
                (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke
            ]
            tab.mouse.move(*points[0])
            tab.mouse.down()
            for x, y in points[1:]:
                tab.mouse.move(x, y, steps=12)
            tab.mouse.up()
        tab.screenshot(path=path)
        chromium.close()


if __name__ == "__main__":
    main()
