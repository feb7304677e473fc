"""`rclone serve s3`: keeps its objects on disk, checks signatures and MD5, ignores IfNoneMatch, forgets metadata."""

from __future__ import annotations

from sandbox.s3 import LocalS3


class Rclone(LocalS3):
    """The demo's server. Its buckets are folders of `folder`."""

    def restart(self) -> None:
        """Lose what it knows and is not on disk, as objects' metadata."""
        self.__exit__(None, None, None)
        self.__enter__()
