"""A table as LaTeX: booktabs and graphicx, nothing else; compiles with pdflatex, xelatex and lualatex.

Where a name holds a letter that pdflatex has no way to print (of another script, say), the file's head says so.
"""

from __future__ import annotations

from itertools import groupby

from results.printed import Entry, Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"\char96{}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "→": r"\ensuremath{\rightarrow}",
    "·": r"\ensuremath{\cdot}",
    "−": r"\ensuremath{-}",
    "‖": r"\ensuremath{\|}",
}
# pdflatex knows no Greek and no relations outside mathematics, and optimizers are labelled with them.
_COMMANDS = dict(
    zip(
        "αβγδεζηθικλμνξπρςστυφχψωϵϑϕΓΔΘΛΞΠΣΥΦΨΩ≤≥≈≠∼≪≫∇∂∞∈√∑∏⋅←↑↓",
        (
            *("alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"),
            *("pi", "rho", "varsigma", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega", "epsilon", "vartheta", "phi"),
            *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
            *("leq", "geq", "approx", "neq", "sim", "ll", "gg", "nabla", "partial", "infty", "in", "surd", "sum", "prod", "cdot"),
            *("leftarrow", "uparrow", "downarrow"),
        ),
        strict=True,
    )
)
_ESCAPES |= {letter: rf"\ensuremath{{\{name}}}" for letter, name in _COMMANDS.items()}
_ESCAPES |= dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True))
_ESCAPES |= {digit: rf"\ensuremath{{_{at}}}" for at, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")}
_ESCAPES |= {digit: rf"\ensuremath{{^{at}}}" for at, digit in zip("0456789-", "⁰⁴⁵⁶⁷⁸⁹⁻", strict=True)}
_KNOWN = "‘’“”†‡•‰€™"
"""What pdflatex prints beyond Latin letters."""
_LACKING = "«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ"
"""Latin letters that its usual fonts have not."""


def escape(text: str) -> str:
    """Text in which LaTeX sees no command, and in which two hyphens stay two hyphens."""
    return "".join(_ESCAPES.get(c, c) for c in text).replace("--", "-{}-")


def unknown(text: str) -> str:
    """The characters that pdflatex does not print, each once."""
    return "".join(dict.fromkeys(c for c in text if c in _LACKING or (ord(c) > 0x17F and c not in _ESCAPES and c not in _KNOWN)))


def latex(table: Table, label: str = "tab:grid") -> str:
    r"""A `table` environment with its caption, footnotes and trail.

    It is shrunk to the line's width where it is wider. The preamble needs \usepackage{booktabs} and \usepackage{graphicx}.

    Args:
        table: what to print.
        label: for \ref; a character that a label must not hold is replaced by a hyphen.
    """
    width = len(table.headings)
    words = [table.title, table.corner, *table.rows, *(part for h in table.headings for part in h), *table.notes, *table.trail]
    beyond = unknown("".join([*words, *(entry.text for line in table.entries for entry in line)]))
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
        *([f"% needs xelatex or lualatex, and a font that has: {beyond}"] if beyond else []),
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        rf"\label{{{''.join(c if c.isascii() and (c.isalnum() or c in ':-.') else '-' for c in label)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        *_heading(table),
        r"\midrule",
        *(
            " & ".join([escape(row), *(_cell(e, table) for e in line)]) + r" \\"
            for row, line in zip(table.rows, table.entries, strict=True)
        ),
        r"\bottomrule",
        r"\end{tabular}%",
        "}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
        *(rf"\textsuperscript{{{table.marker(Entry('', reason=note))}}}~{escape(note)}\par" for note in table.notes),
        *(rf"{escape(sentence)}\par" for sentence in [f"Rows: {table.corner}.", *table.trail]),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _heading(table: Table) -> list[str]:
    """The four heading lines; equal neighbours are merged, with a rule beneath the detector and the test set."""
    lines = []
    for level in range(4):
        cells, rules, at = [""], [], 2
        for heading, group in groupby(h[: level + 1] for h in table.headings):
            count = len(list(group))
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(heading[level])}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
            at += count
        lines.append(" & ".join(cells) + r" \\")
        if level in (0, 2):
            lines.append("".join(rules))
    return lines


def _cell(entry: Entry, table: Table) -> str:
    text = escape(entry.text)
    if entry.best:
        # The whole number, with its spread, is bold; \boldmath reaches the plus-minus sign.
        text = rf"\textbf{{\boldmath {text}}}"
    return text + (rf"\textsuperscript{{{table.marker(entry)}}}" if entry.reason else "")
