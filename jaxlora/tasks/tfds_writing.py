"""TensorFlow Datasets made quiet and kept off the network while it writes."""

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Generator

import tensorflow_datasets as tfds


class OfflineInfo(tfds.core.DatasetInfo):
    """Information about a dataset that is in no bucket, so that none is asked."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; by default it looks for the dataset on Google's servers."""


def offline(anew: bool) -> tfds.download.DownloadConfig:
    """How a dataset is written: from what we have, and over an older one if asked.

    Args:
      anew: write over a dataset that exists; otherwise it is kept.
    """
    modes = tfds.GenerateMode
    return tfds.download.DownloadConfig(
        try_download_gcs=False,
        download_mode=modes.REUSE_CACHE_IF_EXISTS
        if anew
        else modes.REUSE_DATASET_IF_EXISTS,
        # Statistics would read every record once more.
        compute_stats=tfds.download.ComputeStatsMode.SKIP,
    )


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Keeps stdout for results and stderr for the progress bar of a terminal.

    TensorFlow Datasets announces a download that it does not make on stdout, and
    warns of every config that is not built in.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def disk_errors(root: str) -> Generator[None, None, None]:
    """Turns the RuntimeError by which array_record reports a full disk into an OSError.

    Args:
      root: the folder that is written to.

    Raises:
      OSError: naming ``root``, if the disk is full.
    """
    try:
        yield
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), root) from error
