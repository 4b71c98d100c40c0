"""DeepfakeBench's table of detectors, with which the RoGA paper compares."""

from __future__ import annotations

from results.papers.layout import NOT_IN_ZOO, PaperColumn, PaperRow, PaperTable

WITHIN = ("FF++_c23", "FF++_c40", "FF-DF", "FF-F2F", "FF-FS", "FF-NT")
ACROSS = ("CDFv1", "CDFv2", "DF-1.0", "DFD", "DFDC", "DFDCP", "Fsh", "UADFV")


def _columns(group: str, tests: tuple[str, ...], mean: str) -> tuple[PaperColumn, ...]:
    columns = (PaperColumn(t, (group, t), {"test": t}, decimals=4, scale=1) for t in tests)
    return (*columns, PaperColumn(mean, (group, "Avg"), decimals=4, scale=1, mean_of=tests))


def _row(kind: str, detector: str, backbone: str, part: str = "") -> PaperRow:
    key = (kind, detector, backbone)
    return PaperRow(key, {"part": part, "detector": detector, "optimizer": "adam"}) if part else PaperRow(key, reason=NOT_IN_ZOO)


TABLES = (
    PaperTable(
        name="dfb/1",
        title="AUC of 15 detectors trained on FaceForensics++ c23, within it and across datasets",
        source="Z. Yan, Y. Zhang, X. Yuan, S. Lyu, B. Wu, DeepfakeBench, NeurIPS 2023, arXiv 2307.01426, main table",
        csv="deepfakebench_table",
        grid="dfb-table1",
        stubs=("type", "detector", "backbone"),
        columns=(*_columns("within", WITHIN, "within Avg"), *_columns("across", ACROSS, "cross Avg")),
        rows=(
            _row("Naive", "Meso4", "MesoNet", "plain"),
            _row("Naive", "MesoIncep", "MesoNet", "plain"),
            _row("Naive", "CNN-Aug", "ResNet", "augmented"),
            _row("Naive", "Xception", "Xception", "augmented"),
            _row("Naive", "EfficientB4", "Efficient", "augmented"),
            _row("Spatial", "Capsule", "Capsule"),
            _row("Spatial", "FWA", "Xception"),
            _row("Spatial", "Face X-ray", "HRNet"),
            _row("Spatial", "FFD", "Xception"),
            _row("Spatial", "CORE", "Xception", "plain"),
            _row("Spatial", "Recce", "Designed", "plain"),
            _row("Spatial", "UCF", "Xception", "augmented"),
            _row("Frequency", "F3Net", "Xception", "plain"),
            _row("Frequency", "SPSL", "Xception", "augmented"),
            _row("Frequency", "SRM", "Xception", "plain"),
        ),
        groups=1,
        second=True,
    ),
)
