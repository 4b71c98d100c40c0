"""Writes the site: templates filled, scripts and styles beside them, faces as files."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined

from results.audit import audit
from results.files import RecordError
from results.index import GridIndex, WantedCell
from results.printed import METRIC_TITLES
from results.record import METRICS, Level, Record
from results.report import audits
from results.report.board import ReadGrid, island, page_name, test_data
from results.report.curves import training_charts
from results.report.data import DatasetCheck, StoreShown
from results.report.figures import clear, figures_of
from results.report.videos import TestLook, Video, look_at, looks
from results.rows import MixedRow
from results.scores import load_scores
from results.selection import SELECTIONS, Chosen, select
from results.settings import flat_settings, settings_in_words
from results.tidy import protocol_label

FaceSource = Callable[[Record, Video], "Mapping[str, bytes] | str"]
"""A video's faces as WebP by their keys, or one sentence that says why there are none."""

Progress = Callable[[str, int, "int | None"], None]

STATIC = ("report.css", "report.js", "board.js")
MARKER = ".dfgrid-report"


@dataclass
class Written:
    """What was written.

    Attributes:
        index: the page to open.
        cells: pages of cells.
        faces: pictures of faces; mind the licence of their data before they are published.
        figures: on the grids' pages; so many of them `unchanged` since an earlier report, and not drawn again.
        problems: (grid, cell) -> why its numbers are in doubt.
    """

    index: Path
    cells: int = 0
    faces: int = 0
    figures: int = 0
    unchanged: int = 0
    problems: dict[tuple[str, str], str] = field(default_factory=dict)


def read_grids(runs: str | Path, tell: Callable[[str], object] = warnings.warn) -> list[ReadGrid]:
    """The grids of a folder: those in it, or itself where it is one's folder. `tell` is told which one is left out, and why: its
    rows cannot be averaged.

    Raises:
        RecordError: no grid there, one that cannot be read, or not one record in all of them; the sentence says what to run.
    """
    runs = Path(runs)
    if not runs.is_dir():
        raise RecordError(f"{runs} does not exist; give a folder of runs, or run `dfgrid grid run` first")
    folders = [runs] if (runs / "grid.json").exists() else sorted(p.parent for p in runs.glob("*/grid.json"))
    if not folders:
        raise RecordError(f"{runs} holds no grid (no grid.json in it or in its folders); run `dfgrid grid run` first")
    grids, mixed = [], []
    for folder in folders:
        try:
            grids.append(ReadGrid(folder, GridIndex.read(folder)))
        except MixedRow as error:
            mixed.append(error)
    if not grids:
        raise mixed[0]
    for one in mixed:
        tell(f"a grid is left out: {one}")
    names = [g.index.grid.name for g in grids]
    for read in grids:
        if names.count(read.index.grid.name) > 1:
            raise RecordError(f"{runs} holds two grids named '{read.index.grid.name}'; give the folder of one of them")
    if not any(g.index.records for g in grids):
        reasons = [reason for g in grids for reason in g.index.reasons.values()]
        unreadable = [r for r in reasons if "record.json" in r]
        raise RecordError(
            f"no cell of {', '.join(names)} has a record that can be read: {unreadable[0]}"
            if unreadable
            else f"no cell of {', '.join(names)} has a record yet; run `dfgrid grid run {names[0]}`"
        )
    return grids


def write_report(
    grids: Sequence[ReadGrid],
    out: str | Path,
    faces: FaceSource | None = None,
    no_faces: str = "faces were not asked for",
    stores: Iterable[StoreShown] = (),
    datasets: Iterable[DatasetCheck] = (),
    progress: Progress = lambda stage, done, total: None,
    figures: bool = True,
) -> Written:
    """Write the site; an earlier report in the folder is replaced.

    Args:
        grids: as `read_grids` gives them.
        out: folder; made if missing.
        faces: gives the pictures of a video's faces; None: pages say `no_faces`.
        no_faces: why there are no pictures.
        stores, datasets: what the page about the data shows.
        progress: told (stage, steps done, steps); None for steps whose number is not known.
        figures: whether to draw each grid's; those of an earlier report that have not changed stay.

    Raises:
        RecordError: `out` is a file, or a folder with something else in it.
    """
    folder = _prepare(Path(out))
    clear(folder, [g.index.grid.name for g in grids] if figures else [])
    site = Site(folder, faces, no_faces)
    site.audit(grids, progress)
    cells = [(read, cell) for read in grids for cell in _once(read.index.grid.cells)]
    for number, (read, cell) in enumerate(cells):
        site.cell(read, cell)
        progress("write pages", number + 1, len(cells))
    site.leaderboard(grids)
    site.page("audit.html", "audit.html", findings=audit(), ours=site.audits, here="audit")
    site.page("data.html", "data.html", stores=list(stores), datasets=list(datasets), here="data")
    site.figures(grids if figures else [], progress)
    return site.written


def _once(cells: Iterable[WantedCell]) -> list[WantedCell]:
    """Two parts may want one cell; it has one page."""
    return list({c.id: c for c in cells}.values())


def _prepare(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise RecordError(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
        raise RecordError(f"--out {out} holds other things than a report; name a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    (out / "figures").mkdir(exist_ok=True)  # what has not changed is not drawn again
    for name in ("cells", "faces", "assets"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir()
    for name in STATIC:
        shutil.copyfile(Path(__file__).parent / "static" / name, out / "assets" / name)
    return out


class Site:
    """One site while it is written."""

    def __init__(self, folder: Path, faces: FaceSource | None, no_faces: str) -> None:
        self.folder, self.faces, self.no_faces = folder, faces, no_faces
        self.written = Written(folder / "index.html")
        self.known: set[str] = set()
        self.audits: list[audits.GridAudit] = []
        # Names of grids, labels and test sets are users' words: nothing reaches a page unescaped.
        self.templates = Environment(
            loader=PackageLoader("results.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self.templates.filters["percent"] = lambda v: f"{100 * v:.2f}"
        self.templates.filters |= {"counted": audits.counted, "anchor": audits.anchor}
        self.templates.globals |= {"metrics": METRICS, "titles": METRIC_TITLES, "selections": SELECTIONS}

    def page(self, template: str, name: str, **context: Any) -> None:
        """Fill a template and write it; `name` is relative to the site's folder."""
        text = self.templates.get_template(template).render(root="../" * name.count("/"), **context)
        (self.folder / name).write_text(text, encoding="utf-8")

    def leaderboard(self, grids: Sequence[ReadGrid]) -> None:
        """The first page; after the cells, whose problems it marks."""
        data = island(grids, self.written.problems)
        measured = sum(len(g.index.records) for g in grids)
        wanted = sum(len(_once(g.index.grid.cells)) for g in grids)
        self.page(
            "index.html", "index.html", data=data, grids=grids, here="index", measured=measured, wanted=wanted, audits=self.audits
        )

    def audit(self, grids: Sequence[ReadGrid], progress: Progress) -> None:
        """Audit the grids; before their cells, whose pages and rows say where their numbers are in doubt."""
        kept = audits.Auditor(self.folder)
        total, done = sum(len(g.index.records) for g in grids), 0

        def tell(_cell: str) -> None:
            nonlocal done
            done += 1
            progress("audit cells", done, total)

        for read in grids:
            found = kept.audit(read, tell)
            self.audits.append(found)
            self.written.problems |= {(found.grid, cell): why for cell, why in found.doubts.items()}
        kept.save(self.audits)

    def figures(self, grids: Sequence[ReadGrid], progress: Progress) -> None:
        """A page of figures a grid, and the list of those pages."""
        shown = []
        for read in (g for g in grids if g.index.records):
            drawn = 0

            def tell(_name: str) -> None:
                nonlocal drawn
                drawn += 1
                progress("draw figures", self.written.figures + drawn, None)

            found = figures_of(read, self.folder, tell)
            self.written.figures += found.count
            self.written.unchanged += found.unchanged
            protocols = {protocol_label(r): settings_in_words(r.protocol) for r in read.index.records.values()}
            about = {"grid": read.index.grid, "protocols": protocols, "selection": SELECTIONS[found.selection], "here": "cell"}
            self.page("figures.html", found.page, **about, **{k: getattr(found, k) for k in ("families", "missing", "count")})
            shown.append({"page": found.page, "grid": read.index.grid, "count": found.count})
        self.page("figure_list.html", "figures.html", shown=shown, why="left out by --no-figures", here="figures")

    def cell(self, read: ReadGrid, cell: WantedCell) -> None:
        """The page of a cell: what it measured, or why there is nothing."""
        grid = read.index.grid.name
        record = read.index.records.get(cell.id)
        name = f"cells/{page_name(grid, cell.id)}"
        head = {"grid": read.index.grid, "cell": cell, "here": "cell", "record": record}
        if record is None:
            self.page("missing.html", name, reason=read.index.reasons.get(cell.id, "not run yet"), **head)
        else:
            self.page("cell.html", name, **head, **self._content(grid, record, read.folder / cell.id))
        self.written.cells += 1

    def _content(self, grid: str, record: Record, folder: Path) -> dict[str, Any]:
        found: list[TestLook] = []
        not_drawn = ""
        problem, looked = self.written.problems.get((grid, record.cell), ""), ""
        try:
            step, rule = look_at(record)
            looked = f"step {step}, chosen by {rule}"
            found = looks(record, load_scores(folder / "scores.parquet"))
        except RecordError as error:
            not_drawn = problem = str(error).replace(f"{folder}/", "")
            self.written.problems[grid, record.cell] = problem
        reported = _reported(record)
        marks = list(
            dict.fromkeys((name, e) for name, _, c in reported if not SELECTIONS[name].oracle for x in c for e in x.epochs)
        )
        settings = {
            "Protocol": flat_settings(record.protocol),
            f"Detector {record.detector.title}": {"name": record.detector.name, **flat_settings(record.detector.settings)},
            f"Optimizer {record.optimizer.title}": {"name": record.optimizer.name, **flat_settings(record.optimizer.used)},
            f"Base optimizer {record.optimizer.base}": flat_settings(record.optimizer.base_settings),
            "Training data": flat_settings(record.data.get("train", {})),
        }
        tests = [(m, test_data(record, m)) for m in dict.fromkeys(m.test for m in record.measures if m.role != "source-val")]
        return {
            "problem": problem,
            "not_drawn": not_drawn,
            "looked": looked,
            "looks": [
                (look, [self._strip(record, v) for v in look.worst], [self._strip(record, v) for v in look.best]) for look in found
            ],
            "reported": reported,
            "charts": training_charts(record, marks),
            "marks": marks,
            "settings": settings,
            "tests": [(name, flat_settings(data)) for name, data in tests],
        }

    def _strip(self, record: Record, video: Video) -> dict[str, Any]:
        """A video with its pictures' places, or the reason why there are none."""
        pictures: list[tuple[str, float]] = []
        reason = self.no_faces
        if self.faces is not None:
            found = self.faces(record, video)
            reason = found if isinstance(found, str) else ""
            if not isinstance(found, str):
                pictures = [(self._picture(found[key]), score) for key, score in zip(video.keys, video.scores, strict=True)]
        return {"video": video, "pictures": pictures, "reason": reason}

    def _picture(self, content: bytes) -> str:
        name = f"faces/{sha256(content).hexdigest()[:16]}.webp"
        if name not in self.known:
            (self.folder / name).write_bytes(content)
            self.known.add(name)
            self.written.faces += 1
        return f"../{name}"


def _reported(record: Record) -> list[tuple[str, str, list[Chosen]]]:
    """(rule, why it cannot choose, what it reports), frame level before video level within each test set."""
    found: list[tuple[str, str, list[Chosen]]] = []
    for name, rule in SELECTIONS.items():
        try:
            chosen = select(record.measures, rule)
        except RecordError as error:
            found.append((name, str(error), []))
            continue
        order = list(dict.fromkeys(m.test for m in record.measures))
        found.append((name, "", sorted(chosen, key=lambda c: (order.index(c.test), get_args(Level).index(c.level)))))
    return found
