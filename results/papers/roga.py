"""The tables of the RoGA paper."""

from __future__ import annotations

from results.papers.layout import NOT_IN_ZOO, PaperColumn, PaperRow, PaperTable

SOURCE = "L. Qiu, K. Jiang, X. Tan, RoGA, ICME 2025, arXiv 2505.20653, table"
FORGERIES = ("DF", "F2F", "FS", "NT")
OURS = {"detector": "ResNet34", "optimizer": "roga"}


def _auc(*tests: str) -> tuple[PaperColumn, ...]:
    return tuple(PaperColumn(test, (test,), {"test": test}) for test in tests)


def _baseline(category: str, method: str, backbone: str) -> PaperRow:
    return PaperRow((category, method, backbone), {"part": "baselines", "detector": method, "optimizer": "adam"})


_TABLE1 = PaperTable(
    name="roga/1",
    title="Cross-dataset AUC of detectors trained on FaceForensics++",
    source=f"{SOURCE} I",
    csv="roga_table1",
    grid="roga-table1",
    stubs=("category", "method", "backbone"),
    columns=tuple(PaperColumn(t, (t,), {"test": t}, decimals=3, scale=1) for t in ("CDF-v1", "CDF-v2", "UADFV", "DFDC", "DFDCP")),
    rows=(
        _baseline("Naive", "Meso4", "MesoNet"),
        PaperRow(("Naive", "CNN-Aug", "ResNet"), {"part": "CNN-Aug", "detector": "CNN-Aug", "optimizer": "adam"}),
        _baseline("Naive", "Xception", "Xception"),
        _baseline("Naive", "EfficientB4", "EfficientNet"),
        _baseline("Representation Learning", "SPSL", "Xception"),
        _baseline("Representation Learning", "CORE", "Xception"),
        _baseline("Representation Learning", "Recce", "Designed"),
        _baseline("Data Augmentation", "SRM", "Xception"),
        _baseline("Data Augmentation", "UCF", "Xception"),
        PaperRow(("Data Augmentation", "AdaForensics", "ResNet"), reason=NOT_IN_ZOO),
        PaperRow(("Learning Strategy", "MLDG", "Xception"), reason=NOT_IN_ZOO),
        PaperRow(("Learning Strategy", "Multi-task", "Xception"), reason=NOT_IN_ZOO),
        PaperRow(("Learning Strategy", "LTW", "Xception"), reason=NOT_IN_ZOO),
        PaperRow(("Learning Strategy", "ConfR", "EfficientNet"), reason=NOT_IN_ZOO),
        PaperRow(("Ours(RoGA)", "ResNet34", "ResNet"), {"part": "RoGA", **OURS}),
    ),
    groups=1,
    second=True,
)

_TABLE2 = PaperTable(
    name="roga/2",
    title="Leave one forgery out: trained without X, tested on X (GID-X)",
    source=f"{SOURCE} II",
    csv="roga_table2",
    grid="roga-table2",
    stubs=("method",),
    columns=tuple(
        PaperColumn(f"GID-{f} {m}", (f"GID-{f}", m), {"part": f"GID-{f}", "test": f, "metric": m.lower()})
        for f in FORGERIES
        for m in ("ACC", "AUC")
    ),
    rows=(*(PaperRow((m,), reason=NOT_IN_ZOO) for m in ("MLDG", "LTW", "DisGRL")), PaperRow(("Ours(RoGA)",), OURS)),
    second=True,
)

_TABLE3 = PaperTable(
    name="roga/3",
    title="Ablation of the objective's two terms",
    source=f"{SOURCE} III",
    csv="roga_table3",
    grid="roga-table3",
    stubs=("variant", "description"),
    columns=(
        PaperColumn("AUC", ("AUC",), {"metric": "auc"}),
        PaperColumn("ACC", ("ACC",), {"metric": "acc"}),
        PaperColumn("Loss", ("Loss",), {"metric": "log_loss"}, scale=1, lower=True),
        PaperColumn("EER", ("EER",), {"metric": "eer"}, lower=True),
    ),
    rows=tuple(
        PaperRow((variant, description), {"detector": "ResNet34", "optimizer": variant, "test": "DF"})
        for variant, description in (
            ("(a)", "Base-optimizer (SGD)"),
            ("(b)", "+ perturbed loss L(theta+eps_i; D_i)"),
            ("(c)", "+ alignment <grad L(theta+eps_i; D_i), grad L(theta; D_i)>"),
            ("(d)", "RoGA"),
        )
    ),
)

_TABLE4 = PaperTable(
    name="roga/4",
    title="Optimizers",
    source=f"{SOURCE} IV",
    csv="roga_table4",
    grid="roga-table4",
    stubs=("optimizer",),
    columns=tuple(
        PaperColumn(
            f"{test} {m} (train {train})",
            (f"trained on {train.replace(',', ', ')}", f"{test} {m}"),
            {"part": part, "test": test, "metric": m.lower()},
        )
        for test, train, part in (("DF", "FS,F2F,NT", "without-DF"), ("UADFV", "FF++", "all-four"))
        for m in ("AUC", "ACC")
    ),
    rows=tuple(
        PaperRow((row,), {"detector": "ResNet34", "optimizer": optimizer})
        for row, optimizer in (("Adam", "adam"), ("SGD", "sgd"), ("SAM", "sam"), ("SAGM", "sagm"), ("Ours(RoGA)", "roga"))
    ),
    second=True,
)

_TABLE5 = PaperTable(
    name="roga/5",
    title="Backbones, without and with RoGA",
    source=f"{SOURCE} V",
    csv="roga_table5",
    grid="roga-table5",
    stubs=("backbone", "+Ours"),
    columns=_auc(*FORGERIES, "UADFV"),
    rows=tuple(
        PaperRow((backbone, ours), {"detector": backbone, "optimizer": optimizer})
        for backbone in ("Meso4", "Xception", "EfficientNet", "ResNet34")
        for ours, optimizer in (("no", "sgd"), ("yes", "roga"))
    ),
    groups=1,
    best="group",
)

_TABLE6 = PaperTable(
    name="roga/6",
    title="The hyper-parameters alpha and rho",
    source=f"{SOURCE} VI",
    csv="roga_table6",
    grid="roga-table6",
    stubs=("alpha", "rho"),
    columns=_auc(*FORGERIES, "UADFV", "CelebDF"),
    rows=tuple(
        PaperRow((alpha, rho), {"detector": "ResNet34", "optimizer": f"alpha {alpha} rho {rho}"})
        for alpha, rho in (("0.001", "0.05"), ("0.002", "0.05"), ("0.001", "0.1"))
    ),
)

TABLES = (_TABLE1, _TABLE2, _TABLE3, _TABLE4, _TABLE5, _TABLE6)
