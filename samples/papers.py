"""The four sample papers: their figures, their words, and the reuse planted in them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from samples import charts, micrographs, prose
from samples.micrographs import Image, Rng
from samples.typeset import Figure, Journal, Manuscript, Panel, View

SEED = 2026
A4 = (595.0, 842.0)
LETTER = (612.0, 792.0)

Paper = tuple[Manuscript, list["Planted"], list[tuple[str, str, str]]]
"""A manuscript, the pairs planted in it, and look-alikes as (type, panel, panel)."""


@dataclass(frozen=True)
class Planted:
    """A pair that copy search ought to report.

    Attributes:
        cls: How the copy was made, in the evaluator's classes (and ``other_channel``).
        relation: What the reader should be told it is.
        a: Paper file and panel name, such as ``("paper-1.pdf", "2B")``.
        b: The same for the other panel.
        transform: Settings of the change, for the record.
        boxes: For copy-move, the two regions in pixels of the panel's view, and whether mirrored.
    """

    cls: str
    relation: str
    a: tuple[str, str]
    b: tuple[str, str]
    transform: dict[str, Any]
    boxes: tuple[tuple[int, int, int, int], tuple[int, int, int, int], bool] | None = None


def rng_for(name: str) -> Rng:
    """A generator of its own for each master image, so that adding one changes no other."""
    digest = hashlib.sha256(f"{SEED}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def master(name: str, draw: Callable[[Rng], Image]) -> View:
    """A new scene that no other master shares."""
    return View(draw(rng_for(name)), name)


def nuclei(name: str, width: int = 460, height: int = 370, spacing: float = 62) -> View:
    """Grey nuclei."""
    return master(name, lambda r: micrographs.gray(micrographs.nuclei(r, height, width, spacing)))


def fibres(name: str, width: int = 460, height: int = 370, spacing: float = 110) -> View:
    """Grey stress fibres."""
    return master(name, lambda r: micrographs.gray(micrographs.fibres(r, height, width, spacing)))


def tissue(name: str, width: int = 460, height: int = 370, **options: float) -> View:
    """A stained section."""
    return master(name, lambda r: micrographs.histology(r, height, width, **options))


def electron(name: str, width: int = 460, height: int = 370, spacing: float = 105) -> View:
    """An electron micrograph."""
    return master(name, lambda r: micrographs.electron(r, height, width, spacing))


def phase(name: str, width: int = 460, height: int = 370, spacing: float = 66) -> View:
    """Living cells in phase contrast."""
    return master(name, lambda r: micrographs.phase(r, height, width, spacing))


def blot(name: str, rows: list[list[float]], width: int = 480, height: int = 110) -> View:
    """A western blot strip; one strength per row and lane."""
    lanes = len(rows[0])
    return master(name, lambda r: micrographs.blot(r, height, width, lanes, rows))


def channels(name: str, width: int = 420, height: int = 380) -> tuple[View, View, View]:
    """Nuclei in blue, fibres in green, and the merge: three pictures of one field."""
    rng = rng_for(name)
    places = micrographs.scattered(rng, height, width, 105)
    blue = micrographs.nuclei(rng, height, width, 105, places)
    green = micrographs.fibres(rng, height, width, 105, places)
    first = micrographs.tint(blue, (0.18, 0.38, 1.0))
    second = micrographs.tint(green, (0.15, 1.0, 0.3))
    merged = micrographs.merge(first, second)
    return View(first, name), View(second, name), View(merged, name)


def logo(seed: int) -> Image:
    """A small raster emblem, the same on every page of a journal."""
    rng = np.random.default_rng([seed, 9])
    image = np.full((96, 96, 3), 255, np.uint8)
    color = tuple(int(v) for v in rng.integers(20, 170, 3))
    cv2.rectangle(image, (2, 2), (93, 93), color, -1, cv2.LINE_AA)
    for k in range(4):
        cv2.ellipse(
            image, (48, 96), (14 + 13 * k, 20 + 17 * k), 0, 180, 360, (255, 255, 255), 4, 16
        )
    cv2.circle(image, (70, 26), 9, (250, 210, 60), -1, cv2.LINE_AA)
    return image


ANNALS = Journal("Annals of Imaginary Cell Biology", (0.10, 0.33, 0.46), logo(1), *A4)
PATHOLOGY = Journal("Journal of Hypothetical Pathology", (0.55, 0.13, 0.16), None, *LETTER, 50)
METHODS = Journal("Invented Methods", (0.25, 0.40, 0.20), logo(3), *A4, 52)


def paper_1() -> Paper:
    """Cell biology: channels of one field, turned and exact copies, a reused blot."""
    words = prose.Words(
        "verolin",
        "casmin",
        "nuclear flattening",
        "sail-cell epithelium",
        "sail cell",
        "the glass shrimp",
        "auxotrin",
    )
    blue, green, merged = channels("p1/field")
    slide = phase("p1/slide", 960, 380, 70)
    control, treated = slide.crop(0, 0, 420, 380), slide.crop(500, 0, 920, 380)
    spread = phase("p1/spread", 700, 370, 60)
    actin = fibres("p1/actin")
    other_nuclei = nuclei("p1/nuclei-2c", spacing=70)
    target = blot("p1/target", [[0.95, 0.8, 0.35, 0.15, 0.6, 0.75]])
    dense = nuclei("p1/dense", spacing=48)
    clone = ((36, 40, 146, 150), (290, 205), True)
    culture = phase("p1/culture", 460, 370, 58)
    cloned = culture.patched(clone[0], clone[1], clone[2])
    lanes = ("0", "15", "30", "60", "90", "120")
    figures = (
        Figure(
            1,
            (
                (
                    Panel(
                        "1A",
                        draw=charts.schematic(("verolin", "casmin", "F-actin", "nucleus")),
                        modality="diagram",
                        aspect=1.0,
                    ),
                    Panel("1B", blue, modality="fluorescence", label="DNA", bar=1),
                    Panel("1C", green, modality="fluorescence", label="F-actin", bar=1),
                    Panel("1D", merged, modality="fluorescence", label="Merge", bar=1),
                ),
                (
                    Panel("1E", control, modality="brightfield", label="Control", bar=0),
                    Panel("1F", treated, modality="brightfield", label="+ auxotrin", bar=0),
                    Panel(
                        "1G",
                        draw=charts.bars(11, ("Ctrl", "Aux", "Wash"), "Flat nuclei (%)"),
                        aspect=1.25,
                    ),
                ),
            ),
            "Verolin is needed for nuclear flattening. <b>A</b>, Proposed arrangement at the "
            "apical membrane. <b>B-D</b>, One field of sail cells stained for DNA and F-actin, and "
            "both channels merged. <b>E, F</b>, Living cultures before and 60 min after auxotrin; "
            "neighbouring fields of one dish. <b>G</b>, Share of flattened nuclei, 7 cultures. "
            "Bars, 20 µm.",
        ),
        Figure(
            2,
            (
                (
                    Panel("2A", nuclei("p1/nuclei-2a"), modality="fluorescence", bar=1),
                    Panel("2B", other_nuclei, modality="fluorescence", bar=1),
                    Panel("2C", actin, modality="fluorescence", bar=1),
                ),
                (
                    Panel(
                        "2D",
                        actin.toned(0.72, 1.15, 12).recompressed(60),
                        modality="fluorescence",
                        bar=1,
                    ),
                    Panel("2E", spread.crop(0, 0, 460, 370), modality="brightfield", bar=0),
                    Panel("2F", spread.crop(222, 0, 682, 370), modality="brightfield", bar=0),
                ),
            ),
            "Acute loss changes the actin cortex. <b>A, B</b>, Nuclei in control and treated "
            "cultures. <b>C, D</b>, F-actin in control and treated cells. <b>E, F</b>, Phase "
            "contrast of two treated cultures. Bars, 20 µm.",
            gutter_pt=1.5,
            letters="in",
            flat=84,
        ),
        Figure(
            3,
            (
                (Panel("3A", target, modality="blot", lanes=lanes, side="casmin-P"),),
                (
                    Panel(
                        "3B",
                        blot("p1/control", [[0.8, 0.82, 0.78, 0.8, 0.84, 0.79]]),
                        modality="blot",
                        side="tubulin",
                    ),
                ),
                (
                    Panel(
                        "3C",
                        blot("p1/washout", [[0.15, 0.2, 0.45, 0.7, 0.9, 0.85]]),
                        modality="blot",
                        side="casmin",
                    ),
                ),
            ),
            "Modification of casmin after removal of verolin (minutes of treatment above the "
            "lanes). <b>A</b>, Modified casmin. <b>B</b>, Loading control of the same membrane. "
            "<b>C</b>, Total casmin after wash-out.",
            place="right",
            gutter_pt=6,
        ),
        Figure(
            4,
            (
                (
                    Panel("4A", dense, modality="fluorescence", bar=1),
                    Panel("4B", phase("p1/edge", 460, 370, 82), modality="brightfield", bar=0),
                    Panel("4C", control.turned(1), modality="brightfield", bar=0),
                ),
                (
                    Panel(
                        "4D",
                        draw=charts.scatter(14, "Cell area (10³ µm²)", "Nuclear height (µm)"),
                        aspect=1.24,
                    ),
                    Panel("4E", cloned, modality="brightfield", bar=0, arrows=((0.25, 0.3),)),
                    Panel(
                        "4F",
                        draw=charts.curves(
                            15, ("control", "treated"), "Time (h)", "Relative signal"
                        ),
                        aspect=1.24,
                    ),
                ),
                (
                    Panel(
                        "4G",
                        target.toned(0.8, 1.35, -14).recompressed(72),
                        modality="blot",
                        side="verolin",
                    ),
                    Panel(
                        "4H",
                        blot("p1/input", [[0.7, 0.72, 0.66, 0.7, 0.69, 0.73]]),
                        modality="blot",
                        side="input",
                    ),
                ),
            ),
            "Recovery after wash-out. <b>A</b>, Nuclei at high density. <b>B, C</b>, Edge and "
            "centre of a colony. <b>D</b>, Nuclear height and cell area, 90 cells. <b>E</b>, "
            "Cells that did not respond (arrow). <b>F</b>, Time course of recovery. <b>G, H</b>, "
            "Verolin and input during recovery. Bars, 20 µm.",
            gutter_pt=6,
        ),
        Figure(
            5,
            (
                (
                    Panel("5A", dense, modality="fluorescence"),
                    Panel(
                        "5B",
                        master(
                            "p1/puncta",
                            lambda r: micrographs.tint(
                                micrographs.puncta(r, 370, 460, 74), (1, 0.25, 0.2)
                            ),
                        ),
                        modality="fluorescence",
                    ),
                    Panel(
                        "5C",
                        master(
                            "p1/fibres-5c",
                            lambda r: micrographs.tint(
                                micrographs.fibres(r, 370, 460, 90), (0.9, 0.25, 0.8)
                            ),
                        ),
                        modality="fluorescence",
                    ),
                    Panel("5D", nuclei("p1/nuclei-5d", spacing=84), modality="fluorescence"),
                ),
            ),
            "Distribution of verolin. From left to right: nuclei, verolin-positive vesicles, "
            "F-actin, and nuclei of a culture at low density.",
            place="bottom",
            gutter_pt=0,
            letters="none",
            flat=82,
        ),
    )
    story = Manuscript(
        "paper-1.pdf",
        ANNALS,
        "Verolin couples actin tension to the shape of the nucleus in sail-cell epithelia",
        "Ada Placeholder, Bram Nemo, Chiyo Specimen and Dario Lorem",
        "Institute for Invented Biology, Nowhere Sound. Correspondence: nobody@example.invalid. "
        "doi: 00.0000/synthetic-sample.1",
        "The flattening of nuclei in epithelia has been ascribed to a cap of actin cables, but "
        "what ties the cables to the nucleus is not known. Here we remove the linker protein "
        "verolin within one hour and follow single sail cells. Nuclei round up before the cables "
        "change, and flatten again when the protein returns. The partner protein casmin is "
        "modified in step, while its amount stays the same. We propose that verolin holds casmin "
        "where it is modified, and that this step, rather than the cables themselves, sets "
        "nuclear height.",
        lambda share: prose.body(1, words, ["1B-D", "1G", "2C", "2E", "3", "4F", "4B", "5"], share),
        ((), (figures[0],), (figures[1], figures[2]), (figures[3], figures[4])),
    )
    one = "paper-1.pdf"
    x0, y0, x1, y1 = clone[0]
    to = (clone[1][0], clone[1][1], clone[1][0] + x1 - x0, clone[1][1] + y1 - y0)
    pairs = [
        Planted("other_channel", "other_channel", (one, "1B"), (one, "1D"), {"ch": "b"}),
        Planted("other_channel", "other_channel", (one, "1C"), (one, "1D"), {"ch": "g"}),
        Planted(
            "photometric",
            "same_image",
            (one, "2C"),
            (one, "2D"),
            {"gamma": 0.72, "contrast": 1.15, "bright": 12, "q": 60},
        ),
        Planted("crop_50_70", "overlapping_fields", (one, "2E"), (one, "2F"), {"overlap": 0.517}),
        Planted("rot90_180", "same_image", (one, "1E"), (one, "4C"), {"rot": 90}),
        Planted(
            "photometric",
            "same_blot",
            (one, "3A"),
            (one, "4G"),
            {"gamma": 0.8, "contrast": 1.35, "bright": -14, "q": 72},
        ),
        Planted(
            "copy_move",
            "copy_move",
            (one, "4E"),
            (one, "4E"),
            {"sub": "flip_h", "area": 0.071},
            (clone[0], to, True),
        ),
        Planted("exact", "same_image", (one, "4A"), (one, "5A"), {}),
    ]
    negatives = [
        ("adjacent_field", "1E", "1F"),
        ("adjacent_field", "1F", "4C"),
        ("similar_blot", "3A", "3B"),
        ("similar_blot", "3B", "4H"),
    ]
    return story, pairs, negatives


def paper_2() -> Paper:
    """Pathology: a mirrored, a tilted, a shrunken and a grey copy, and cloned lanes."""
    words = prose.Words(
        "tesmar-2",
        "holofin",
        "granule turnover",
        "hepatic lobules",
        "lobule cell",
        "the glass mouse",
        "pausamycin",
        "48 kDa",
    )
    first = tissue("p2/first", spacing=36)
    second = tissue("p2/second", spacing=30)
    third = tissue("p2/third", 560, 460, spacing=33)
    section = tissue("p2/brown", 980, 370, spacing=34, brown=0.22)
    organelles = electron("p2/organelles", 520, 400, 112)
    wide = electron("p2/wide", 820, 400, 96)
    lanes = ("WT", "WT", "+/-", "+/-", "-/-", "-/-", "resc.", "resc.")
    strip = blot("p2/strip", [[0.9, 0.85, 0.6, 0.5, 0.1, 0.15, 0.7, 0.75]], 560, 120)
    clone = ((1, 12, 139, 108), (281, 12), False)
    lane_copy = strip.patched(clone[0], clone[1], clone[2])
    holofin = blot("p2/holofin", [[0.5, 0.65, 0.9, 0.3, 0.75, 0.2, 0.45, 0.85]], 560, 120)
    borrowed = nuclei("p1/nuclei-2a").crop(30, 20, 450, 360).scaled(0.8).toned(1.25, 1.1, 8)
    gel = master(
        "p2/gel",
        lambda r: micrographs.gel(
            r,
            400,
            420,
            8,
            [
                [0, 0.7, 0.7, 0.7, 0.65, 0.1, 0, 0.6],
                [0, 0, 0.1, 0.6, 0.6, 0.8, 0.75, 0.5],
            ],
        ),
    )
    figures = (
        Figure(
            1,
            (
                (
                    Panel("1A", first.crop(0, 0, 460, 370), modality="histology", bar=0),
                    Panel("1B", second, modality="histology", bar=0, arrows=((0.4, 0.5),)),
                    Panel("1C", third.crop(50, 45, 510, 415), modality="histology", bar=0),
                ),
                (
                    Panel("1D", first.mirrored(), modality="histology", bar=0),
                    Panel("1E", section.crop(0, 0, 460, 370), modality="histology", bar=0),
                    Panel(
                        "1F",
                        tissue("p2/brown-2", spacing=34, brown=0.5),
                        modality="histology",
                        bar=0,
                        arrows=((0.6, 0.4), (0.25, 0.7)),
                    ),
                ),
            ),
            "Lobules of the glass mouse. <b>A-D</b>, Sections of wild-type (A), heterozygous (B), "
            "mutant (C) and rescued animals (D). <b>E, F</b>, Tesmar-2 (brown) in wild-type and "
            "heterozygous tissue; arrows, stained cells at the border. Bars, 20 µm.",
            place="bottom",
            gutter_pt=2,
            letters="in",
        ),
        Figure(
            2,
            (
                (
                    Panel("2A", organelles.crop(0, 0, 460, 380), modality="em"),
                    Panel(
                        "2B",
                        electron("p2/granules", 460, 380, 90).toned(1.15, 0.9, 12),
                        modality="em",
                    ),
                    Panel("2C", wide.crop(0, 0, 460, 380), modality="em"),
                ),
            ),
            "Fine structure of lobule cells from wild-type (left), heterozygous (middle) and "
            "mutant animals (right). Pixel size, 4 nm.",
            gutter_pt=1,
            letters="in",
            flat=82,
        ),
        Figure(
            3,
            ((Panel("3", draw=charts.survival(23, ("-/-", "WT")), aspect=1.5),),),
            "Survival of wild-type and mutant animals (40 per group).",
            place="left",
            letters="none",
        ),
        Figure(
            4,
            (
                (
                    Panel("4A", gel, modality="gel", bar=None),
                    Panel("4B", draw=charts.flow(24, 0.0), aspect=1.05),
                    Panel("4C", draw=charts.flow(25, 0.24), aspect=1.05),
                ),
                (Panel("4D", lane_copy, modality="blot", lanes=lanes, side="tesmar-2"),),
                (Panel("4E", holofin, modality="blot", side="holofin"),),
                (
                    Panel(
                        "4F",
                        blot("p2/loading", [[0.75] * 8], 560, 100),
                        modality="blot",
                        side="tubulin",
                    ),
                ),
            ),
            "Genotyping and abundance. <b>A</b>, Products of the two alleles. <b>B, C</b>, Flow "
            "cytometry of wild-type (B) and mutant cells (C); numbers, per cent in the upper "
            "right. <b>D-F</b>, Immunoblots of lysates from single animals.",
            gutter_pt=7,
            width_share=0.86,
        ),
        Figure(
            5,
            (
                (
                    Panel("5A", third.rotated(10, 460, 370), modality="histology"),
                    Panel("5B", tissue("p2/fourth", spacing=40), modality="histology"),
                    Panel("5C", section.crop(500, 0, 960, 370), modality="histology"),
                ),
            ),
            "Rescue by a second copy of the gene. Left, rescued animal at 12 weeks; middle, "
            "untreated; right, tesmar-2 (brown) in a neighbouring field of the section in Figure "
            "1E.",
            gutter_pt=1,
            letters="in",
            ink="CMYK",
            flat=86,
        ),
        Figure(
            6,
            (
                (
                    Panel("6A", second.grey(), modality="histology"),
                    Panel("6B", wide.crop(262, 0, 722, 380), modality="em"),
                    Panel("6C", borrowed, modality="fluorescence"),
                ),
                (
                    Panel(
                        "6D",
                        organelles.crop(0, 0, 460, 380).scaled(0.55),
                        modality="em",
                    ),
                    Panel(
                        "6E",
                        holofin.turned(2).toned(1.1, 0.9, 6),
                        modality="blot",
                    ),
                ),
            ),
            "Supplementary comparisons. <b>A</b>, Heterozygous tissue without stain. <b>B</b>, "
            "Mutant cell at the sinusoid. <b>C</b>, Nuclei of cultured lobule cells. <b>D</b>, "
            "Mitochondria after rescue. <b>E</b>, Membrane probed for the second epitope.",
            gutter_pt=4,
            place="bottom",
            flat=80,
            ink="L",
        ),
    )
    story = Manuscript(
        "paper-2.pdf",
        PATHOLOGY,
        "Loss of Tesmar-2 slows the turnover of granules in the liver of the glass mouse",
        "Elin Mustermann<sup>1</sup>, Farid Anon<sup>1,2</sup>, Gwen Dolor<sup>2</sup>",
        "1 School of Unwritten Medicine, Port Absence. 2 Museum of Missing Organs. "
        "doi: 00.0000/synthetic-sample.2",
        "Granules of the hepatic lobule are made once and taken apart slowly. In a search for "
        "genes that set this pace we found tesmar-2, a protein of the granule border. Mutant "
        "glass mice keep their granules three times longer, and their lobules lose their regular "
        "borders. A second copy of the gene restores both. The partner holofin is dispensable. "
        "We discuss why slow turnover shortens the life of an animal that does not exist.",
        lambda share: prose.body(2, words, ["1A-D", "1E", "2", "3", "4B", "4D", "5", "6"], share),
        ((figures[0],), (figures[1], figures[2]), (figures[3],), (figures[4], figures[5])),
    )
    one, two = "paper-1.pdf", "paper-2.pdf"
    x0, y0, x1, y1 = clone[0]
    to = (clone[1][0], clone[1][1], clone[1][0] + x1 - x0, clone[1][1] + y1 - y0)
    pairs = [
        Planted("flip", "same_image", (two, "1A"), (two, "1D"), {"flip": "h"}),
        Planted("rot_arb", "same_image", (two, "1C"), (two, "5A"), {"angle": 10}),
        Planted("color2gray", "same_image", (two, "1B"), (two, "6A"), {"ch": "luma"}),
        Planted("resize", "same_image", (two, "2A"), (two, "6D"), {"scale": 0.55}),
        Planted("crop_30_50", "overlapping_fields", (two, "2C"), (two, "6B"), {"overlap": 0.43}),
        Planted("rot90_180", "same_blot", (two, "4E"), (two, "6E"), {"rot": 180}),
        Planted(
            "copy_move",
            "copy_move",
            (two, "4D"),
            (two, "4D"),
            {"sub": "shift", "area": 0.197},
            (clone[0], to, False),
        ),
        Planted(
            "combo",
            "same_image",
            (one, "2A"),
            (two, "6C"),
            {"overlap": 0.84, "scale": 0.8, "gamma": 1.25, "contrast": 1.1, "bright": 8, "q": 80},
        ),
    ]
    negatives = [
        ("adjacent_field", "1E", "5C"),
        ("similar_blot", "4D", "4E"),
        ("similar_blot", "4E", "4F"),
    ]
    return story, pairs, negatives


def same_camera(name: str, width: int, height: int, spacing: float) -> View:
    """A phase contrast field under the dust and the uneven light of one and the same camera."""
    rng = rng_for("p3/camera")
    dust = np.ones((height, width), np.float32)
    for _ in range(9):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        r = rng.uniform(2, 5)
        micrographs.fill(dust, micrographs.outline(rng, x, y, r, r * 0.8, 0), 0.72)
    shade = 1 + 0.06 * micrographs.cloud(rng, height, width, width / 3)
    flat = micrographs.blur(dust, 1.4) * shade
    view = phase(name, width, height, spacing)
    image = np.clip(view.image * flat[:, :, None], 0, 255).astype(np.uint8)
    return replace(view, image=image)


def paper_3() -> Paper:
    """Clean: neighbouring fields, one camera's dust, look-alike blots, and no reuse at all."""
    words = prose.Words(
        "quietin",
        "restin",
        "field-to-field variation",
        "resting cultures",
        "lamp cell",
        "the marsh newt",
        "stillamine",
        "21 kDa",
    )
    slide = nuclei("p3/slide", 960, 780, 64)
    corners = [(0, 0), (500, 0), (0, 400), (500, 400)]
    fields = [slide.crop(x, y, x + 450, y + 370) for x, y in corners]
    section = tissue("p3/section", 980, 370, spacing=31)
    figures = (
        Figure(
            1,
            (
                tuple(
                    Panel(f"1{'ABC'[k]}", fields[k], modality="fluorescence", bar=1)
                    for k in range(3)
                ),
                (
                    Panel("1D", fields[3], modality="fluorescence", bar=1),
                    Panel(
                        "1E",
                        draw=charts.bars(31, ("1", "2", "3", "4"), "Nuclei per field"),
                        aspect=450 / 370,
                    ),
                    Panel(
                        "1F",
                        draw=charts.scatter(32, "Field", "Count (10²)"),
                        aspect=450 / 370,
                    ),
                ),
            ),
            "Counting nuclei in neighbouring fields. <b>A-D</b>, Four fields of one slide that "
            "do not overlap. <b>E</b>, Counts of the four fields in seven slides. <b>F</b>, "
            "Counts of all fields in the order in which they were taken. Bars, 20 µm.",
            gutter_pt=4,
            letters="out",
        ),
        Figure(
            2,
            (
                (
                    Panel("2A", same_camera("p3/phase-a", 460, 370, 62), modality="brightfield"),
                    Panel("2B", same_camera("p3/phase-b", 460, 370, 62), modality="brightfield"),
                    Panel("2C", same_camera("p3/phase-c", 460, 370, 62), modality="brightfield"),
                ),
            ),
            "Three cultures under one camera. Dust on the sensor is at the same place in all three "
            "pictures; the cells are not the same.",
            gutter_pt=1.2,
            letters="in",
            flat=84,
        ),
        Figure(
            3,
            tuple(
                (
                    Panel(
                        f"3{'ABC'[k]}",
                        blot(f"p3/blot-{k}", [[0.8, 0.78, 0.82, 0.8, 0.79, 0.81]]),
                        modality="blot",
                        lanes=("1", "2", "3", "4", "5", "6") if k == 0 else (),
                        side=("restin", "actin", "tubulin")[k],
                    ),
                )
                for k in range(3)
            ),
            "Three proteins that do not change, in six cultures.",
            place="left",
        ),
        Figure(
            4,
            (
                (
                    Panel("4A", section.crop(0, 0, 460, 370), modality="histology", bar=0),
                    Panel("4B", section.crop(510, 0, 970, 370), modality="histology", bar=0),
                    Panel("4C", electron("p3/em", 460, 370, 120), modality="em", bar=1),
                ),
            ),
            "Tissue from which the cultures were made. <b>A, B</b>, Two fields of one section. "
            "<b>C</b>, Fine structure of a lamp cell.",
            gutter_pt=3,
        ),
    )
    story = Manuscript(
        "paper-3.pdf",
        ANNALS,
        "How much two fields of one slide differ: a quiet reference for counting nuclei",
        "Hana Blank, Ivo Draft and Jun Margin",
        "Laboratory of Nothing in Particular, Stillwater. doi: 00.0000/synthetic-sample.3",
        "Anyone who compares two cultures needs to know how far two fields of one culture "
        "differ. We took four fields of each of seven slides of resting lamp cells and counted "
        "nuclei. The counts vary by a tenth, more than counting error and less than the effects "
        "that are usually reported. No picture in this paper shows the same place twice.",
        lambda share: prose.body(3, words, ["1A-D", "1E", "2", "1F", "3", "4A", "4C", "3B"], share),
        ((), (figures[0],), (figures[1], figures[2]), (figures[3],)),
    )
    negatives = [
        ("adjacent_field", f"1{a}", f"1{b}") for a, b in ("AB", "AC", "AD", "BC", "BD", "CD")
    ]
    negatives += [("same_camera", f"2{a}", f"2{b}") for a, b in ("AB", "AC", "BC")]
    negatives += [("adjacent_field", "4A", "4B")]
    negatives += [("similar_blot", f"3{a}", f"3{b}") for a, b in ("AB", "AC", "BC")]
    return story, [], negatives


def paper_4() -> Paper:
    """Hard to read: a scanned page, a page on its side, and a sheet of thumbnails."""
    words = prose.Words(
        "ageusin",
        "perdurin",
        "fading of the stain",
        "stored sections",
        "mounted cell",
        "the paper moth",
        "cold light",
        "9 kDa",
    )
    plate = phase("p4/plate", 460, 370, 74)
    tall = electron("p4/tall", 520, 420, 118)
    figures = (
        Figure(
            1,
            (
                (
                    Panel("1A", plate, modality="brightfield", bar=0),
                    Panel("1B", electron("p4/em", 460, 370, 100), modality="em", bar=1),
                ),
                (
                    Panel("1C", nuclei("p4/nuclei", spacing=72), modality="fluorescence", bar=1),
                    Panel("1D", tissue("p4/tissue", spacing=36), modality="histology", bar=0),
                ),
            ),
            "Plates from the first box, copied from a printed catalogue. This page was scanned.",
            gutter_pt=5,
        ),
        Figure(
            2,
            (
                (
                    Panel("2A", tall, modality="em", bar=1),
                    Panel("2B", plate.toned(1.1, 1.05, 4), modality="brightfield", bar=0),
                    Panel(
                        "2C", tissue("p4/wide", 560, 420, spacing=42), modality="histology", bar=0
                    ),
                ),
                (
                    Panel(
                        "2D",
                        draw=charts.curves(42, ("box 1", "box 2"), "Years", "Density"),
                        aspect=1.5,
                    ),
                    Panel("2E", draw=charts.bars(43, ("1", "2", "3"), "Legible (%)"), aspect=1.2),
                    Panel("2F", draw=charts.scatter(44, "Age", "Grain (µm)"), aspect=1.5),
                ),
            ),
            "Plates from the second box, at full width. This page lies on its side in the file "
            "and is turned for reading.",
            gutter_pt=3,
            letters="in",
        ),
        Figure(
            3,
            (
                (
                    Panel("3A", nuclei("p4/t1", 150, 150, 36), modality="fluorescence"),
                    Panel("3B", phase("p4/t2", 150, 150, 40), modality="brightfield"),
                    Panel("3C", tissue("p4/t3", 150, 150, spacing=24), modality="histology"),
                    Panel("3D", tall.crop(60, 10, 460, 410).scaled(0.375), modality="em"),
                    Panel("3E", fibres("p4/t5", 150, 150, 60), modality="fluorescence"),
                ),
            ),
            "Index prints of the plates that could not be copied at full size.",
            gutter_pt=1,
            letters="none",
            place="right",
        ),
    )
    story = Manuscript(
        "paper-4.pdf",
        METHODS,
        "Recovering figures from archival plates: notes on a survey that was never made",
        "Kim Glyph and Lou Kerning",
        "Archive of Lost Captions, Farther Shore. doi: 00.0000/synthetic-sample.4",
        "Old plates reach us as scans of prints, as pages lying on their side, and as index "
        "prints of the size of a stamp. We describe what can be recovered from each, using a "
        "collection that was invented for the purpose.",
        lambda share: prose.body(4, words, ["1", "2", "3", "2A", "1C"], share),
        ((), (figures[0],), None, (figures[2],)),
        sideways=figures[1],
    )
    four = "paper-4.pdf"
    pairs = [
        Planted(
            "combo",
            "same_image",
            (four, "1A"),
            (four, "2B"),
            {"gamma": 1.1, "contrast": 1.05, "bright": 4, "scan": True},
        ),
        Planted("resize", "same_image", (four, "2A"), (four, "3D"), {"scale": 0.375}),
    ]
    return story, pairs, []


PAPERS = (paper_1, paper_2, paper_3, paper_4)
