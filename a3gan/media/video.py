"""Video files and cameras, frame by frame: the names that the rest of the package uses.

`VideoReader` and `CameraReader` give `Frame`s (uint8 RGB [H, W, 3], upright); `VideoWriter` makes a file of them with
the sound of the original. Nothing here knows of faces.
"""

from a3gan.media.camera import CameraReader, camera_index
from a3gan.media.video_info import VIDEO_SUFFIXES, VideoInfo, is_video
from a3gan.media.video_read import Frame, VideoReader
from a3gan.media.video_write import VideoWriter

__all__ = [
    "VIDEO_SUFFIXES", "CameraReader", "Frame", "VideoInfo", "VideoReader", "VideoWriter", "camera_index", "is_video",
]  # fmt: skip
