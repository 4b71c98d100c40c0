"""What is said of the detectors: measured again, fresh in the docs, and quick to list."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmark import docs
from detectors import DETECTORS
from detectors.cards import FILE, read_cards
from detectors.measure import card

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
STALE = "run python -m benchmark.docs"


@pytest.mark.parametrize("name", DETECTORS.builtin())
def test_the_card_says_what_is_measured(name):
    assert read_cards()[name] == card(name), STALE


def test_there_is_a_card_for_every_detector_and_no_other():
    assert tuple(read_cards()) == DETECTORS.builtin(), STALE


def test_the_page_is_fresh():
    assert docs.PAGE.read_text(encoding="utf-8") == docs.page(read_cards()), STALE


def test_the_agreement_is_of_detectors_that_exist_and_good_to_1e_5():
    lines = docs.AGREEMENT.read_text(encoding="utf-8").splitlines()[1:]
    taking = {name for name in DETECTORS.builtin() if "dfb" in read_cards()[name].weights}
    assert {line.split(",")[0] for line in lines} == taking
    assert all(float(line.rsplit(",", 1)[1]) < 1e-5 for line in lines)


@pytest.mark.parametrize(
    ("name", "gflops"),
    [("resnet50", 2 * 4.089 * (256 / 224) ** 2), ("vit_b_16", 2 * 17.564), ("convnext_base", 2 * 15.355 * (256 / 224) ** 2)],
)
def test_the_operations_are_the_librarys(name, gflops):
    # torchvision publishes multiply-adds at 224 px, as its documentation's GFLOPS; convolutions grow with the area.
    assert read_cards()[name].gflops == pytest.approx(gflops, rel=0.01)


def test_every_built_in_detector_says_what_it_is():
    for name in DETECTORS.builtin():
        about = DETECTORS.get(name).about
        assert about is not None
        assert all((about.title, about.paper, about.year, about.backbone, about.pooling, about.insertion))


def run(*args):
    code = "import sys; from benchmark.cli import main; sys.argv[0] = 'dfgrid'\ntry: main()\nfinally: print('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], cwd=ROOT, capture_output=True, text=True, check=False)


def dfgrid(*args):
    done = run(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_listing_needs_no_torch_and_shows_everything():
    shown = dfgrid("list", "detectors", "--markdown")
    *table, imported = shown.splitlines()
    assert imported == "False"
    assert table[0] == "| name | detector | backbone | parameters | GFLOPs | input | needs | weights |"
    assert len(table) == 2 + len(DETECTORS.builtin())
    row = next(line for line in table if "`xception`" in line)
    for said in ("Xception (2017)", "pretrainedmodels", "20.81 M", "11.9", "256 px", "`none`, `imagenet`, `dfb`"):
        assert said in row
    assert dfgrid("list", "detectors").splitlines()[-1] == "False"


def test_a_plug_in_is_listed_and_measured():
    shown = dfgrid("list", "detectors", "--markdown", "--measure", "--plugin", "examples/my_detector.py")
    row = next(line for line in shown.splitlines() if "`my_detector`" in line)
    assert "64 px" in row
    assert "2,866" in row


BROKEN = """
from detectors import DETECTORS
from detectors.base import Detector


@DETECTORS.register("fails")
class Fails(Detector):
    '''Faces of 64 px.'''

    def forward(self, images):
        raise RuntimeError("no such layer")


@DETECTORS.register("asks")
class Asks(Detector):
    '''Faces of 32 px.'''

    def __init__(self, width):
        super().__init__()


@DETECTORS.register("lacks")
class Lacks(Detector):
    '''Faces of 32 px.'''

    needs = ("views")
"""


@pytest.mark.parametrize("markdown", [(), ("--markdown",)])
def test_a_plug_in_that_cannot_be_measured_hides_no_other(tmp_path, markdown):
    (tmp_path / "broken.py").write_text(BROKEN)
    plugins = ("--plugin", tmp_path / "broken.py", "--plugin", "examples/my_detector.py")
    done = run("list", "detectors", "--measure", *plugins, *markdown)
    assert done.returncode == 0, done.stderr
    assert "2,866" in done.stdout
    said = " ".join(done.stderr.split())
    assert "detector 'fails' cannot be measured (RuntimeError: no such layer); see dfgrid check detector fails" in said
    assert "detector 'asks' cannot be measured (RegistryError: " in said
    assert "detector 'lacks' cannot be measured (RegistryError: needs is 'views', one string; write needs = ('views',))" in said
    if not markdown:
        assert "Faces of 64 px" in " ".join(done.stdout.split())


def test_stale_cards_would_be_seen(tmp_path, monkeypatch):
    found = json.loads(FILE.read_text(encoding="utf-8"))
    found["meso4"]["parameters"] += 1
    changed = tmp_path / "cards.json"
    changed.write_text(json.dumps(found), encoding="utf-8")
    monkeypatch.setattr("detectors.cards.FILE", changed)
    assert read_cards()["meso4"] != card("meso4")
    assert docs.PAGE.read_text(encoding="utf-8") != docs.page(read_cards())


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_list_breaks_no_name_and_cuts_no_word(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = dfgrid("list", "detectors")
    table = shown[: shown.index("Besides these")]
    assert all(len(line) <= width for line in table.splitlines())
    assert "…" not in table
    words = set(table.replace(",", " ").split())
    assert {*DETECTORS.builtin(), "imagenet", "dfb", "methods", "Dosovitskiy"} <= words
    assert ("efficientnet-pytorch" in words) == (width >= 100)


def test_a_citation_is_authors_and_venue():
    cards = read_cards()
    assert cards["efficientnet_b4"].citation == "Tan and Le, ICML 2019"
    assert cards["recce"].citation == "Cao et al., CVPR 2022"
    assert all(card.citation for card in cards.values())
