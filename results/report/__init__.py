"""The static site of `dfgrid report`: leaderboard, a page a cell, figures, the audit, the data.

It opens from disk and asks no network.
"""

from __future__ import annotations

from results.report.board import ReadGrid
from results.report.data import DatasetCheck, StoreShown
from results.report.site import FaceSource, Site, Written, read_grids, write_report
from results.report.videos import Video

__all__ = ["DatasetCheck", "FaceSource", "ReadGrid", "Site", "StoreShown", "Video", "Written", "read_grids", "write_report"]
