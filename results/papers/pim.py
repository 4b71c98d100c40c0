"""The tables of the PIM paper. Its numbers on other datasets are taken for video-level AUC, as those that it cites are."""

from __future__ import annotations

from results.papers.layout import NOT_IN_ZOO, PaperColumn, PaperRow, PaperTable

SOURCE = "W. Guan, W. Wang, J. Dong, B. Peng, IEEE TIFS 19, 2024, doi 10.1109/TIFS.2024.3396064, table"
SETS = ("CDF", "DFDCP", "DFDC", "WDF")
VIDEO = {"level": "video"}
CONVNEXT = {"detector": "ConvNeXt-base", **VIDEO}


def _auc(*tests: str, mean: str = "") -> tuple[PaperColumn, ...]:
    columns = tuple(PaperColumn(test, (test,), {"test": test}) for test in tests)
    return (*columns, PaperColumn(mean, (mean,), mean_of=tests)) if mean else columns


_TABLE1 = PaperTable(
    name="pim/1",
    title="AUC of a detector trained on one forgery, on every other",
    source=f"{SOURCE} 1",
    csv="pim_table1",
    grid="pim-table1",
    stubs=("train",),
    columns=tuple(PaperColumn(t, ("tested on", t), {"test": t}, decimals=4, scale=1) for t in ("DF", "FS", "F2F", "NT")),
    rows=tuple(PaperRow((train,), {"part": train, "optimizer": "adam", **CONVNEXT}) for train in ("DF", "FS", "F2F", "NT")),
    best="none",
)

_STATISTICS = (
    PaperColumn("Acc", ("Acc",), {"metric": "acc"}, decimals=4, scale=1),
    PaperColumn("Logloss", ("Logloss",), {"metric": "log_loss"}, decimals=4, scale=1, lower=True),
)
_OPEN = (
    "The paper leaves open which layers are shallow, whose statistics are changed, and of what accuracy is measured. Here: the "
    "modules into which PIM pushes; each face's and channel's over its positions; of videos, since every accuracy that both tables "
    "print is k / 280, as of the 140 real and 140 fake test videos of a forgery."
)


def _probed(test: str, optimizer: str, changed: str) -> dict[str, str]:
    return {"part": test, "test": test, "optimizer": optimizer, "changed": changed, **CONVNEXT}


_TABLE2 = PaperTable(
    name="pim/2",
    title="A detector before and after a perturbation of shallow statistics",
    source=f"{SOURCE} 2",
    csv="pim_table2",
    grid="pim-table2",
    stubs=("dataset", "perturbation"),
    columns=_STATISTICS,
    rows=tuple(PaperRow((d, when), _probed(d, "adam", when)) for d in ("DF", "F2F") for when in ("before", "after")),
    groups=1,
    best="none",
    probed=True,
    remark=_OPEN,
)

_TABLE3 = PaperTable(
    name="pim/3",
    title="Under a perturbation of shallow statistics, without and with the method's loss",
    source=f"{SOURCE} 3",
    csv="pim_table3",
    grid="pim-table2",
    stubs=("dataset", "our loss"),
    columns=_STATISTICS,
    rows=tuple(
        PaperRow((d, loss), _probed(d, rule, "after")) for d in ("DF", "F2F") for loss, rule in (("w/o", "adam"), ("w", "pim"))
    ),
    groups=1,
    best="group",
    probed=True,
    remark=_OPEN,
)

_TABLE4 = PaperTable(
    name="pim/4",
    title="Backbones without and with PIM, without and with data augmentation",
    source=f"{SOURCE} 4",
    csv="pim_table4",
    grid="pim-table4",
    stubs=("augmentation", "backbone", "+PIM"),
    columns=_auc(*SETS, mean="Average"),
    rows=tuple(
        PaperRow((augmentation, backbone, with_pim), {"part": augmentation, "detector": backbone, "optimizer": rule, **VIDEO})
        for augmentation in ("without", "with")
        for backbone in ("ResNet-50", "XceptionNet", "EfficientNet-b4", "ConvNeXt-base")
        for with_pim, rule in (("no", "adam"), ("yes", "pim"))
    ),
    groups=1,
    best="group",
)


def _cited(method: str, published: str, data: str) -> PaperRow:
    return PaperRow((method, published, data), reason=NOT_IN_ZOO)


_TABLE5 = PaperTable(
    name="pim/5",
    title="Published methods and PIM: AUC within FaceForensics++ and across datasets",
    source=f"{SOURCE} 5",
    csv="pim_table5",
    grid="pim-table5",
    stubs=("method", "published", "training data"),
    columns=_auc("FF++", *SETS),
    rows=(
        _cited("Face X-ray", "CVPR'20", "FF++-Real & BI"),
        _cited("Face X-ray", "CVPR'20", "FF++ & BI"),
        _cited("FTCN", "ICCV'21", "FF++"),
        _cited("PCL+I2G", "ICCV'21", "FF++-Real & I2G"),
        _cited("LRL", "AAAI'21", "FF++"),
        _cited("FRDM", "CVPR'21", "FF++"),
        _cited("RFM", "CVPR'21", "FF++"),
        _cited("MultiAtt", "CVPR'21", "FF++"),
        PaperRow(("RECCE", "CVPR'22", "FF++"), {"part": "RECCE", "detector": "RECCE", "optimizer": "adam", **VIDEO}),
        _cited("Wavelet", "MM'22", "FF++"),
        _cited("DisGRL", "IJCAI'23", "FF++"),
        _cited("STC", "MM'23", "FF++-Real & STG"),
        _cited("MRL", "TIFS'23", "FF++"),
        PaperRow(("SBI", "CVPR'22", "FF++-Real & SBI"), {"part": "SBI", "optimizer": "adam", **CONVNEXT}),
        PaperRow(("Ours", "-", "FF++"), {"part": "PIM", "optimizer": "pim", **CONVNEXT}),
        PaperRow(("Ours", "-", "FF++-Real & SBI"), {"part": "SBI", "optimizer": "pim", **CONVNEXT}),
    ),
    second=True,
    note="note",
)

_TABLE6 = PaperTable(
    name="pim/6",
    title="The hyper-parameter r",
    source=f"{SOURCE} 6",
    csv="pim_table6",
    grid="pim-table6",
    stubs=("alpha", "r"),
    columns=_auc(*SETS, mean="Avg-AUC"),
    rows=tuple(PaperRow(("1", r), {"optimizer": f"r {r}", **CONVNEXT}) for r in ("0", "0.05", "0.1", "0.2")),
)

_TABLE7 = PaperTable(
    name="pim/7",
    title="The hyper-parameter alpha",
    source=f"{SOURCE} 7",
    csv="pim_table7",
    grid="pim-table7",
    stubs=("alpha", "r"),
    columns=_auc(*SETS, mean="Avg-AUC"),
    rows=tuple(PaperRow((a, "0.1"), {"optimizer": f"alpha {float(a):g}", **CONVNEXT}) for a in ("1", "0.75", "0.50", "0.25", "0")),
)

_RATIOS = ("0.8:0.2", "0.5:0.5", "0.2:0.8")
_MIXES = (
    ("1.0", "1.0:0.0"),
    ("1.0", "0.0:1.0"),
    *((total, ratio) for total in ("1.0", "0.8", "0.5", "0.2") for ratio in _RATIOS),
)


def _dualflat(number: int, data: str) -> PaperTable:
    return PaperTable(
        name=f"pim/{number}",
        title=f"DualFlat's alpha and beta, trained on {data}",
        source=f"{SOURCE} {number}",
        csv=f"pim_table{number}",
        grid=f"pim-table{number}",
        stubs=("alpha+beta", "alpha:beta"),
        columns=_auc(*SETS, mean="Avg-AUC"),
        rows=tuple(PaperRow((t, r), {"optimizer": f"{t} {r.replace(':', '-')}", **CONVNEXT}) for t, r in _MIXES),
        groups=1,
        second=True,
    )


TABLES = (
    *(_TABLE1, _TABLE2, _TABLE3, _TABLE4, _TABLE5, _TABLE6, _TABLE7),
    *(_dualflat(8, "FaceForensics++"), _dualflat(9, "self-blended images")),
)
