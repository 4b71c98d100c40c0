"""The built-in mini dataset: drawn people, real H.264 files, four forgeries; for a first day without signed agreements.

Real deepfake datasets come after a signed agreement. So that the whole road - video files, decoding, face detection, alignment, the
store, training, evaluation, tables - runs at once and offline, this package draws people and forges them. The files are real: H.264
in the folder layouts of FaceForensics++ (mini-a) and Celeb-DF-v2 (mini-b), with split lists and masks.

**This is a smoke test of the road. Its numbers are no evidence about optimizers**, detectors or datasets: the cues of the forgeries
were drawn by hand and their strengths were set so that three families to the fourth is neither trivial nor hopeless.

It forges drawings only and is no tool for swapping the faces of real people: a forgery is computed from the parameters of two drawn
scenes and takes no photograph.

Everything is a random draw from one seed: the files are the same to the byte whatever the number of processes. On another kind of
machine, or with another encoder, rounding may differ. The strengths of the cues are the `ranges` in forge.py.
"""

from preprocessing.synthetic.dataset import Settings, Summary, draw_dataset, plan

__all__ = ["Settings", "Summary", "draw_dataset", "plan"]
