"""The claims of the PIM paper (Guan et al., IEEE TIFS 2024, doi 10.1109/TIFS.2024.3396064), decided by its own tables."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from results.audit.claim import Claim, Evidence
from results.audit.published import Published, mean

SETS = ("CDF", "DFDCP", "DFDC", "WDF")
AVERAGES = {
    "pim_table4": "Average",
    "pim_table6": "Avg-AUC",
    "pim_table7": "Avg-AUC",
    "pim_table8": "Avg-AUC",
    "pim_table9": "Avg-AUC",
}


def _averages(e: Evidence) -> None:
    for name, column in AVERAGES.items():
        t = e.table(name)
        wrong = []
        for number, row in enumerate(t.rows(), 1):
            found = mean(t.value(row, c) for c in SETS)
            if abs(found - t.value(row, column)) > Decimal("0.01"):
                wrong.append(f"row {number}: {t.value(row, column)} printed, {found:.4f} computed")
        e.check(f"{name}: every average to 0.01", "; ".join(wrong) or f"all {len(t.rows())} rows agree", not wrong)


def _pair(t: Published, augmentation: str, backbone: str) -> tuple[dict[str, str], dict[str, str]]:
    with_it, without = (t.row(**{"augmentation": augmentation, "backbone": backbone, "+PIM": own}) for own in ("yes", "no"))
    return with_it, without


def _gains(e: Evidence) -> None:
    t = e.table("pim_table4")
    for backbone, column, claimed in (
        ("XceptionNet", "DFDCP", "2.41"),
        ("XceptionNet", "WDF", "3.47"),
        ("EfficientNet-b4", "CDF", "1.86"),
        ("EfficientNet-b4", "WDF", "2.01"),
        ("ConvNeXt-base", "Average", "1.05"),
    ):
        with_it, without = _pair(t, "without", backbone)
        e.difference(
            f"gain of {backbone} on {column}, without augmentation", claimed, t.value(with_it, column), t.value(without, column)
        )


def _every_backbone(e: Evidence) -> None:
    t = e.table("pim_table4")
    for augmentation in ("without", "with"):
        for backbone in dict.fromkeys(row["backbone"] for row in t.rows()):
            with_it, without = _pair(t, augmentation, backbone)
            high, low = t.value(with_it, "Average"), t.value(without, "Average")
            e.check(f"the average of {backbone} {augmentation} augmentation rises", f"{low} to {high} ({high - low:+})", high > low)


def _sbi(e: Evidence) -> None:
    t = e.table("pim_table5")
    ours = t.row(method="Ours", **{"training data": "FF++-Real & SBI"})
    theirs = t.row(method="SBI")
    for column, claimed in (("CDF", "1.25"), ("DFDC", "2.59")):
        e.difference(f"above SBI* on {column}", claimed, t.value(ours, column), t.value(theirs, column))


def _alpha(e: Evidence) -> None:
    t = e.table("pim_table7")
    best, value = t.best("Avg-AUC")
    e.check("alpha = 1 has the best average", f"{value} at alpha {best['alpha']}", Decimal(best["alpha"]) == 1)
    rows = sorted(t.rows(), key=lambda row: Decimal(row["alpha"]))
    averages = [t.value(row, "Avg-AUC") for row in rows]
    e.check(
        "the average rises with alpha",
        ", ".join(f"alpha {row['alpha']}: {average}" for row, average in zip(rows, averages, strict=True)),
        all(low < high for low, high in pairwise(averages)),
    )


def _dualflat(e: Evidence) -> None:
    for name in ("pim_table8", "pim_table9"):
        t = e.table(name)
        alone = t.row(**{"alpha+beta": "1.0", "alpha:beta": "1.0:0.0"})
        for column in ("Avg-AUC", *SETS):
            best, value = t.best(column)
            e.check(
                f"{name}: PIM alone is best in {column}",
                f"{t.value(alone, column)}; the highest is {value} at alpha + beta = {best['alpha+beta']}, {best['alpha:beta']}",
                t.value(alone, column) == value,
            )


def _radius(e: Evidence) -> None:
    t = e.table("pim_table6")

    def averages() -> tuple[Decimal, Decimal, Decimal]:
        small, middle, large = (t.value(t.row(r=r), "Avg-AUC") for r in ("0.05", "0.1", "0.2"))
        return small, middle, large

    small, middle, large = averages()
    e.check(
        "r = 0.05 and r = 0.1 differ in the average by less than either from r = 0.2",
        f"{small} and {middle} (r = 0.2: {large})",
        abs(small - middle) < min(abs(small - large), abs(middle - large)),
    )
    small, middle, large = averages()
    e.check("the average at r = 0.2 is lower than at both", f"{large} against {small} and {middle}", large < min(small, middle))


def _consistency(e: Evidence) -> None:
    four, six, seven = e.table("pim_table4"), e.table("pim_table6"), e.table("pim_table7")
    eight, nine, five = e.table("pim_table8"), e.table("pim_table9"), e.table("pim_table5")
    with_it, without = _pair(four, "without", "ConvNeXt-base")
    for column in SETS:
        e.same(
            f"the plain loss on {column}: tables 4 (ConvNeXt, no augmentation), 6 (r = 0) and 7 (alpha = 0)",
            (four.value(without, column), six.value(six.row(r="0"), column), seven.value(seven.row(alpha="0"), column)),
        )
    for column in SETS:
        e.same(
            f"PIM on {column}: tables 4 (ConvNeXt, no augmentation), 6 (r = 0.1), 7 (alpha = 1) and 8 (1.0:0.0)",
            (
                four.value(with_it, column),
                six.value(six.row(r="0.1"), column),
                seven.value(seven.row(alpha="1"), column),
                eight.value(eight.row(**{"alpha:beta": "1.0:0.0"}), column),
            ),
        )
    sam, sbi = nine.row(**{"alpha:beta": "0.0:1.0"}), five.row(method="SBI")
    pairs = [(column, nine.value(sam, column), five.value(sbi, column)) for column in SETS]
    e.check(
        "table 9's SAM row (0.0:1.0) is a measurement of its own, not table 5's SBI* row without SAM",
        ", ".join(f"{column} {a} / {b}" for column, a, b in pairs),
        any(a != b for _, a, b in pairs),
    )


CLAIMS = (
    Claim("pim-1", "pim", "every Average and Avg-AUC is the mean of its four columns", _averages),
    Claim(
        "pim-2",
        "pim",
        "without augmentation Xception + PIM gains 2.41 points on DFDCP and 3.47 on WDF; EfficientNet-b4 + PIM gains 1.86 on CDF "
        "and 2.01 on WDF; ConvNeXt gains 1.05 on average",
        _gains,
    ),
    Claim("pim-3", "pim", "the module improves the average of every backbone, with and without augmentation", _every_backbone),
    Claim("pim-4", "pim", "trained on SBI data it beats SBI* by 1.25 on CDF and 2.59 on DFDC", _sbi),
    Claim("pim-5", "pim", "alpha = 1 gives the best average, and the average rises with alpha", _alpha),
    Claim("pim-6", "pim", "DualFlat is best when it reduces to PIM (alpha : beta = 1 : 0)", _dualflat),
    Claim("pim-7", "pim", "r = 0.05 and r = 0.1 are similarly good and r = 0.2 is worse", _radius),
    Claim(
        "pim-8",
        "pim",
        "(consistency) alpha = 0 and r = 0 are both the plain loss, the ConvNeXt row without augmentation; beta = 1 alone is SAM",
        _consistency,
    ),
)
