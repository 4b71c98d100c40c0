"""Faces that came from, or go to, DeepfakeBench: its JSON files, PNG folders and LMDBs."""

from preprocessing.interop.exporting import Export, export_deepfakebench
from preprocessing.interop.importing import Import, import_deepfakebench

__all__ = ["Export", "Import", "export_deepfakebench", "import_deepfakebench"]
