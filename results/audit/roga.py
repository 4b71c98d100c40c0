"""The claims of the RoGA paper (Qiu et al., ICME 2025, arXiv 2505.20653), decided by its own tables."""

from __future__ import annotations

from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal

from results.audit.claim import Claim, Evidence
from results.audit.published import mean

OURS = "Ours(RoGA)"
FORGERIES = ("DF", "F2F", "FS", "NT")


def _cross_dataset(e: Evidence) -> None:
    t = e.table("roga_table1")
    ours = t.row(category=OURS)
    for column in ("CDF-v1", "CDF-v2", "UADFV", "DFDC", "DFDCP"):
        best, value = t.best(column)
        e.check(
            f"highest AUC on {column}",
            f"{t.value(ours, column)}; the highest is {value} of {best['method']}",
            t.value(ours, column) == value,
        )
    e.check("0.877 on Celeb-DF (v1)", t.text(ours, "CDF-v1"), t.text(ours, "CDF-v1") == "0.877")
    e.check("0.751 on DFDC", t.text(ours, "DFDC"), t.text(ours, "DFDC") == "0.751")


def _multi_source(e: Evidence) -> None:
    t = e.table("roga_table2")
    ours = t.row(method=OURS)
    for column in [c for c in ours if c != "method"]:
        best, value = t.best(column)
        e.check(
            f"best {column}", f"{t.value(ours, column)}; the highest is {value} of {best['method']}", t.value(ours, column) == value
        )


def _over_the_second(e: Evidence) -> None:
    t = e.table("roga_table2")
    ours = t.row(method=OURS)
    others = [row for row in t.rows() if row is not ours]
    for column, claimed in (("GID-FS AUC", "11.78"), ("GID-DF AUC", "3.98")):
        e.difference(f"{column} above the second", claimed, t.value(ours, column), t.best(column, others)[1])


def _ablation(e: Evidence) -> None:
    t = e.table("roga_table3")
    full = t.row(variant="(d)")
    e.check("AUC 99.30 of the full method", t.text(full, "AUC"), t.text(full, "AUC") == "99.30")
    e.difference("AUC above the perturbed loss alone", "0.27", t.value(full, "AUC"), t.value(t.row(variant="(b)"), "AUC"))
    e.difference("AUC above the alignment alone", "0.10", t.value(full, "AUC"), t.value(t.row(variant="(c)"), "AUC"))


def _sharpness_aware(e: Evidence) -> None:
    t = e.table("roga_table4")
    sam = t.row(optimizer="SAM")
    for column in [c for c in sam if c != "optimizer"]:
        for other in ("Adam", "SGD"):
            theirs = t.value(t.row(optimizer=other), column)
            value = t.value(sam, column)
            e.check(f"SAM above {other}: {column}", f"{value} against {theirs}", value > theirs)
    there = any(row["optimizer"] == "ASAM" for row in t.rows())
    e.check("ASAM above Adam and SGD", "there is a row for ASAM" if there else "the table has no row for ASAM", None)


def _over_adam(e: Evidence) -> None:
    t = e.table("roga_table4")
    ours, adam = t.row(optimizer=OURS), t.row(optimizer="Adam")
    for column, where, claimed in (
        ("DF ACC (train FS,F2F,NT)", "in-domain", "1.47"),
        ("UADFV ACC (train FF++)", "cross-domain", "6.10"),
    ):
        e.difference(f"{where} ACC above Adam", claimed, t.value(ours, column), t.value(adam, column))


def _gain(e: Evidence, backbone: str, column: str) -> Decimal:
    t = e.table("roga_table5")
    with_it, without = (t.row(**{"backbone": backbone, "+Ours": own}) for own in ("yes", "no"))
    return t.value(with_it, column) - t.value(without, column)


def _xception(e: Evidence) -> None:
    claimed = Decimal("7.21")
    for what, columns in (("all five columns", (*FORGERIES, "UADFV")), ("the four forgeries of FF++", FORGERIES)):
        gains = [_gain(e, "Xception", column) for column in columns]
        found = mean(gains)
        e.check(f"average gain over {what}: {claimed}", f"{found:+.2f}", found.quantize(Decimal("0.01")) == claimed)
    gains_by = {column: _gain(e, "Xception", column) for column in (*FORGERIES, "UADFV")}
    e.check(
        f"gain in some column: {claimed}",
        ", ".join(f"{column} {gain:+}" for column, gain in gains_by.items()),
        claimed in gains_by.values(),
    )


def _every_backbone(e: Evidence) -> None:
    for backbone in ("Meso4", "Xception", "EfficientNet", "ResNet34"):
        gains = {column: _gain(e, backbone, column) for column in (*FORGERIES, "UADFV")}
        e.check(
            f"{backbone} gains in every column",
            ", ".join(f"{column} {gain:+}" for column, gain in gains.items()),
            all(gain > 0 for gain in gains.values()),
        )


def _hyper_parameters(e: Evidence) -> None:
    t = e.table("roga_table6")
    named = t.row(alpha="0.001", rho="0.1")
    for what, columns in (("within FF++", FORGERIES), ("cross-dataset", ("UADFV", "CelebDF"))):
        means = {f"alpha {row['alpha']}, rho {row['rho']}": mean(t.value(row, c) for c in columns) for row in t.rows()}
        best = max(means, key=lambda key: means[key])
        e.check(
            f"best mean {what}",
            "; ".join(f"{key}: {value:.2f}" for key, value in means.items()),
            best == f"alpha {named['alpha']}, rho {named['rho']}",
        )
    for column in (*FORGERIES, "UADFV", "CelebDF"):
        best_row, value = t.best(column)
        e.check(
            f"best in column {column}",
            f"{t.value(named, column)}; the highest is {value} at alpha {best_row['alpha']}, rho {best_row['rho']}",
            t.value(named, column) == value,
        )
    trained = [row for row in t.rows() if Decimal(row["alpha"]) == Decimal("0.0002")]
    e.check(
        "the alpha of the training details, 0.0002, is among those compared",
        f"{len(trained)} rows with alpha 0.0002",
        bool(trained),
    )


def _consistency(e: Evidence) -> None:
    gid, optimizers = e.table("roga_table2"), e.table("roga_table4")
    ablation, backbones, settings = e.table("roga_table3"), e.table("roga_table5"), e.table("roga_table6")
    cross = e.table("roga_table1")
    for metric in ("AUC", "ACC"):
        e.same(
            f"trained without DF, tested on DF, {metric}: tables II and IV",
            (
                gid.value(gid.row(method=OURS), f"GID-DF {metric}"),
                optimizers.value(optimizers.row(optimizer=OURS), f"DF {metric} (train FS,F2F,NT)"),
            ),
        )
    ours = backbones.row(**{"backbone": "ResNet34", "+Ours": "yes"})
    plain = backbones.row(**{"backbone": "ResNet34", "+Ours": "no"})
    best = settings.row(alpha="0.001", rho="0.1")
    e.same(
        "ResNet34 with RoGA on DF: tables III, V and VI (alpha 0.001, rho 0.1)",
        (ablation.value(ablation.row(variant="(d)"), "AUC"), backbones.value(ours, "DF"), settings.value(best, "DF")),
    )
    e.same(
        "ResNet34 with SGD on DF: tables III and V",
        (ablation.value(ablation.row(variant="(a)"), "AUC"), backbones.value(plain, "DF")),
    )
    roga = cross.row(category=OURS)
    e.same(
        "ResNet34 with RoGA on UADFV, to one decimal in %: tables I, IV, V and VI (alpha 0.001, rho 0.1)",
        (
            n.quantize(Decimal("0.1"), ROUND_HALF_UP)
            for n in (
                100 * cross.value(roga, "UADFV"),
                optimizers.value(optimizers.row(optimizer=OURS), "UADFV AUC (train FF++)"),
                backbones.value(ours, "UADFV"),
                settings.value(best, "UADFV"),
            )
        ),
    )
    e.same(
        "ResNet34 with SGD on UADFV: tables IV and V",
        (optimizers.value(optimizers.row(optimizer="SGD"), "UADFV AUC (train FF++)"), backbones.value(plain, "UADFV")),
    )
    celeb = settings.value(best, "CelebDF")
    both = [100 * cross.value(roga, column) for column in ("CDF-v1", "CDF-v2")]
    e.check(
        "Celeb-DF, to one decimal in %: table VI (alpha 0.001, rho 0.1) is one of table I's two columns",
        f"{celeb} against {both[0]} (v1) and {both[1]} (v2)",
        celeb.quantize(Decimal("0.1"), ROUND_HALF_UP) in both,
    )
    rows = [(row, [other for other in backbones.rows() if all(other[f] == row[f] for f in FORGERIES)]) for row in settings.rows()]
    copied = [(row, other) for row, others in rows for other in others]
    for row, other in copied:
        values = [(settings.value(row, c), backbones.value(other, c)) for c in ("UADFV",)]
        e.check(
            f"table VI (alpha {row['alpha']}, rho {row['rho']}) prints the four FF++ numbers of table V's {other['backbone']}; "
            "so should be its UADFV",
            " / ".join(f"{a} and {b}" for a, b in values),
            all(a == b for a, b in values),
        )


def _quality(e: Evidence) -> None:
    t = e.table("deepfakebench_table")
    lower = [row["detector"] for row in t.rows() if t.value(row, "FF++_c40") < t.value(row, "FF++_c23")]
    e.check(
        "if c23 were the lower quality, detectors would do worse on it than on c40",
        f"{len(lower)} of {len(t.rows())} detectors of DeepfakeBench's table do worse on c40",
        len(lower) * 2 < len(t.rows()),
    )


THEIR_NAMES = {"CDF-v1": "CDFv1", "CDF-v2": "CDFv2", "UADFV": "UADFV", "DFDC": "DFDC", "DFDCP": "DFDCP"}


def _baselines(e: Evidence) -> None:
    t, theirs = e.table("roga_table1"), e.table("deepfakebench_table")
    for row in t.rows():
        same = theirs.rows(detector=row["method"])
        if not same:
            continue
        wrong, thousandth = [], Decimal("0.001")
        for column, name in THEIR_NAMES.items():
            printed, source = t.value(row, column), theirs.value(same[0], name)
            if printed not in (source.quantize(thousandth, ROUND_HALF_UP), source.quantize(thousandth, ROUND_HALF_DOWN)):
                wrong.append(f"{column} {printed} against {source}")
        e.check(
            f"{row['method']}: DeepfakeBench's numbers, rounded", "; ".join(wrong) or f"all {len(THEIR_NAMES)} agree", not wrong
        )


CLAIMS = (
    Claim(
        "roga-1",
        "roga",
        "outperforms the state of the art across datasets, with the highest AUC 0.877 on Celeb-DF and 0.751 on DFDC",
        _cross_dataset,
    ),
    Claim("roga-2", "roga", "the multi-source results consistently outperform the baselines", _multi_source),
    Claim("roga-3", "roga", "GID-FS and GID-DF AUC are 11.78 and 3.98 points above the second detector", _over_the_second),
    Claim("roga-4", "roga", "the full method's 99.30 % AUC surpasses the two single terms by 0.27 and 0.10 points", _ablation),
    Claim("roga-5", "roga", "sharpness-aware optimizers such as SAM and ASAM outperform Adam and SGD", _sharpness_aware),
    Claim(
        "roga-6",
        "roga",
        "+1.47 points ACC over Adam in-domain, +6.1 points cross-domain",
        _over_adam,
        remark="The column called in-domain is trained on three forgeries and tested on the fourth: it is a held-out forgery.",
    ),
    Claim("roga-7", "roga", "on Xception an average increase of 7.21 points", _xception),
    Claim("roga-8", "roga", "the method improves every backbone", _every_backbone),
    Claim(
        "roga-9",
        "roga",
        "the best hyper-parameters are alpha = 0.001, rho = 0.1 under both evaluations",
        _hyper_parameters,
        remark="The training details of the paper use alpha = 0.0002 with rho = 0.1.",
    ),
    Claim("roga-10", "roga", "(consistency) the same setting has the same number everywhere", _consistency),
    Claim(
        "roga-11",
        "roga",
        "(text) c23 is called low quality and c40 high quality",
        _quality,
        remark="In FaceForensics++ c23 is the light compression (HQ) and c40 the heavy one (LQ).",
    ),
    Claim("roga-12", "roga", "the baseline rows of table I are those of DeepfakeBench", _baselines),
)
