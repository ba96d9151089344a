"""A window that shows frames while they are made.

By tkinter, which comes with most Pythons: OpenCV's headless build, which is here for other reasons, has no window.
"""

from __future__ import annotations

import time

import numpy as np

from a3gan.errors import UserError

LONGEST = 960  # px
RATE = 15.0  # pictures a second at most: showing must not slow the work down


class Window:
    """A context manager; `show` puts a picture [H, W, 3] into the window; closed by hand, the run goes on without it.

    UserError where there is no tkinter or no display.
    """

    def __init__(self, title: str):
        try:
            import tkinter

            self._root = tkinter.Tk()
        except ImportError as error:
            raise UserError("--preview: this Python lacks tkinter (Debian, Ubuntu: apt install python3-tk)") from error
        except tkinter.TclError as error:
            raise UserError(f"--preview: there is no display to show it on ({error})") from error
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._last, self._open = 0.0, True
        self._root.protocol("WM_DELETE_WINDOW", self._close)

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._root.destroy()

    def show(self, image: np.ndarray) -> None:
        """Shows a picture, or skips it if the last one is too fresh."""
        now = time.monotonic()
        if not self._open or now - self._last < 1 / RATE:
            return
        from PIL import Image, ImageTk

        picture = Image.fromarray(image)
        picture.thumbnail((LONGEST, LONGEST))
        photo = ImageTk.PhotoImage(picture, master=self._root)
        self._label.configure(image=photo)
        self._label.image = photo  # tkinter keeps no reference of its own
        self._root.update()
        self._last = now
