"""Raw videos to aligned faces in an LMDB store: layouts, frames, faces, store. Knows nothing of detectors, training or tables."""
