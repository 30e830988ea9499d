"""Sample cards: a small gallery of drawn trading cards, and two photographs of some of them.

Everything is drawn from seeded noise and shapes; names, sets and creatures are invented. Families
share an artwork, as reprints do: another set symbol and number, another language, another frame.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

Picture = NDArray[np.uint8]

WIDTH, HEIGHT = 480, 670
SETS = {"MDW": (54, 120, 70), "TID": (40, 90, 170), "EMB": (190, 80, 40), "GLM": (110, 70, 140)}
FRAMES = ((232, 221, 190), (188, 209, 226), (214, 190, 200), (196, 216, 186), (205, 200, 216))
WORDS = {
    "en": "when this creature wakes draw a leaf then rest one turn beside still water",
    "de": "wenn dieses wesen erwacht zieh ein blatt dann ruhe eine runde am stillen wasser",
}
NAMES = (
    "Fernwick", "Tarnling", "Osskit", "Mirebell", "Quillow", "Hazemoth", "Bramjay", "Lodestar",
    "Pindle", "Wrenna",
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """One card: its artwork, its print, and how it is dressed."""

    card_id: str
    art: int
    set_code: str
    number: int
    language: str = "en"
    frame: int = 0
    full_art: bool = False

    @property
    def name(self) -> str:
        """What stands on it."""
        return NAMES[self.art % len(NAMES)]


def catalogue(arts: int = 10) -> list[Card]:
    """Families of look-alikes and cards that are alone, in a fixed order."""
    cards: list[Card] = []
    sets = list(SETS)
    for art in range(arts):
        first = Card(
            card_id=f"{sets[art % 4].lower()}-{10 + 7 * art:03d}",
            art=art,
            set_code=sets[art % 4],
            number=10 + 7 * art,
            frame=art % len(FRAMES),
            full_art=art % 4 == 3,
        )
        cards.append(first)
        if art % 2 == 0:
            cards.append(_print_of(first, sets[(art + 1) % 4], 111 + 5 * art))
        if art % 3 == 0:
            cards.append(replace(first, card_id=f"{first.card_id}-de", language="de"))
        if art % 5 == 4:
            other = _print_of(first, sets[(art + 2) % 4], 152 + 3 * art)
            cards.append(replace(other, frame=(first.frame + 2) % len(FRAMES)))
    return cards


def _print_of(card: Card, set_code: str, number: int) -> Card:
    """The same artwork in another set."""
    name = f"{set_code.lower()}-{number:03d}"
    return replace(card, card_id=name, set_code=set_code, number=number)


def unseen_reprint(card: Card) -> Card:
    """A print of a card that no gallery holds."""
    return replace(card, card_id="unseen", set_code="GLM", number=(card.number + 61) % 200)


def draw(card: Card) -> Picture:
    """A card, RGB, ``HEIGHT`` x ``WIDTH`` px."""
    frame = FRAMES[card.frame]
    sheet = Pictures.new("RGB", (WIDTH, HEIGHT), (246, 246, 242))
    pen = ImageDraw.Draw(sheet)
    pen.rounded_rectangle((14, 14, WIDTH - 15, HEIGHT - 15), 12, fill=frame)
    top, tall = (60, 330) if not card.full_art else (16, HEIGHT - 34)
    left, wide = (34, WIDTH - 68) if not card.full_art else (16, WIDTH - 32)
    sheet.paste(Pictures.fromarray(artwork(card.art, wide, tall)), (left, top))
    pen.rectangle((left, top, left + wide, top + tall), outline=(30, 30, 35), width=2)
    dark = (25, 25, 30)
    pen.rectangle((24, 20, WIDTH - 25, 54), fill=tuple(min(255, v + 18) for v in frame))
    pen.text((34, 24), card.name, font=ImageFont.load_default(24), fill=dark)
    strength = 20 + 10 * (card.art * 7 % 19)
    pen.text((WIDTH - 92, 26), f"{strength}", font=ImageFont.load_default(20), fill=(140, 30, 30))
    pen.rectangle((34, 410, WIDTH - 35, HEIGHT - 62), fill=tuple(min(255, v + 26) for v in frame))
    _text(pen, card)
    _print_mark(pen, card)
    return np.asarray(sheet).copy()


def artwork(art: int, wide: int, tall: int) -> Picture:
    """Sky, hills and a creature, different for each number."""
    chance = np.random.default_rng([2026, art])
    low, high = chance.integers(30, 230, (2, 3))
    ramp = np.linspace(0, 1, tall)[:, None, None]
    sky = np.broadcast_to(low * (1 - ramp) + high * ramp, (tall, wide, 3))
    grain = cv2.resize(chance.normal(0, 12, (tall // 12 + 1, wide // 12 + 1, 3)), (wide, tall))
    picture = np.ascontiguousarray(np.clip(sky + grain, 0, 255).astype(np.uint8))
    for _ in range(4):
        heights = np.cumsum(chance.normal(0, 26, 9)) + tall * chance.uniform(0.4, 0.9)
        ridge = np.stack([np.linspace(0, wide, 9), heights], axis=1)
        hill = np.concatenate([ridge, [[wide, tall], [0, tall]]]).astype(np.int32)
        cv2.fillPoly(picture, [hill], chance.integers(20, 235, 3).tolist(), cv2.LINE_AA)
    middle = np.array([wide * chance.uniform(0.35, 0.65), tall * chance.uniform(0.4, 0.6)])
    body = chance.integers(20, 235, 3)
    for _ in range(int(chance.integers(7, 13))):
        place = (middle + chance.normal(0, 0.12, 2) * wide).astype(int).tolist()
        axes = (chance.uniform(0.04, 0.18, 2) * wide).astype(int).tolist()
        turn = float(chance.uniform(0, 180))
        shade = np.clip(body + chance.integers(-70, 70, 3), 0, 255).tolist()
        cv2.ellipse(picture, place, axes, turn, 0, 360, shade, -1, cv2.LINE_AA)
        cv2.ellipse(picture, place, axes, turn, 0, 360, (15, 15, 18), 2, cv2.LINE_AA)
    for _ in range(24):
        spot = (chance.uniform(0, 1, 2) * [wide, tall]).astype(int).tolist()
        shade = chance.integers(0, 255, 3).tolist()
        cv2.circle(picture, spot, int(chance.integers(2, 7)), shade, -1, cv2.LINE_AA)
    return picture


def _text(pen: ImageDraw.ImageDraw, card: Card) -> None:
    chance = np.random.default_rng([7, card.art])
    words = WORDS[card.language].split()
    font = ImageFont.load_default(16)
    for line in range(8):
        some = " ".join(words[index] for index in chance.integers(0, len(words), 7))
        pen.text((44, 420 + 23 * line), some[:48], font=font, fill=(30, 30, 34))


def _print_mark(pen: ImageDraw.ImageDraw, card: Card) -> None:
    """Set symbol and number at the lower edge."""
    colour = SETS[card.set_code]
    pen.rectangle((24, HEIGHT - 58, WIDTH - 25, HEIGHT - 24), fill=(236, 236, 230))
    x, y, sides = 44, HEIGHT - 41, 3 + list(SETS).index(card.set_code)
    pen.regular_polygon((x, y, 13), sides, fill=colour, outline=(20, 20, 20))
    label = f"{card.set_code} {card.number:03d}/200"
    pen.text((66, HEIGHT - 52), label, font=ImageFont.load_default(19), fill=(20, 20, 24))
    pen.text(
        (WIDTH - 150, HEIGHT - 48),
        "Quire samples",
        font=ImageFont.load_default(13),
        fill=(60, 60, 60),
    )


def photograph(
    cards: list[Card], *, columns: int, seed: int
) -> tuple[Picture, list[NDArray[np.float64]]]:
    """A page of a binder by hand: in pockets, a little turned, in perspective, unevenly lit.

    Returns:
        The photograph, RGB, and the corners of each card, shape (4, 2), in its pixels.
    """
    chance = np.random.default_rng(seed)
    scale, gap = 0.62, 34
    wide, tall = round(WIDTH * scale), round(HEIGHT * scale)
    rows = -(-len(cards) // columns)
    size = (columns * (wide + gap) + 120, rows * (tall + gap) + 120)
    page: Any = np.full((size[1], size[0], 3), 34, np.float32) + chance.normal(
        0, 3, (size[1], size[0], 1)
    )
    corners: list[NDArray[np.float64]] = []
    outline = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], np.float64)
    for index, card in enumerate(cards):
        across, down = index % columns, index // columns
        centre = (60 + across * (wide + gap) + wide / 2, 60 + down * (tall + gap) + tall / 2)
        lays = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), float(chance.normal(0, 1.2)), scale)
        lays[:, 2] += np.array(centre) - (WIDTH / 2, HEIGHT / 2) + chance.normal(0, 3, 2)
        laid = cv2.warpAffine(draw(card), lays, size, flags=cv2.INTER_AREA)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.rectangle(mask, (14, 0), (WIDTH - 15, HEIGHT), 255, -1)
        cv2.rectangle(mask, (0, 14), (WIDTH, HEIGHT - 15), 255, -1)
        for x, y in ((14, 14), (WIDTH - 15, 14), (14, HEIGHT - 15), (WIDTH - 15, HEIGHT - 15)):
            cv2.circle(mask, (x, y), 14, 255, -1)
        inside = cv2.warpAffine(mask, lays, size)[:, :, None] / 255.0
        page = page * (1 - inside) + laid * inside
        corners.append(outline @ lays[:, :2].T + lays[:, 2])
    shift = chance.uniform(0, 0.04, (4, 2)) * [size[0], size[1]]
    frame = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float64)
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    view = cv2.getPerspectiveTransform(
        frame.astype(np.float32), (frame + inward * shift).astype(np.float32)
    )
    seen = cv2.warpPerspective(page, view, size, borderMode=cv2.BORDER_REPLICATE)
    light = cv2.resize(chance.uniform(0.85, 1.12, (3, 3)), size, interpolation=cv2.INTER_CUBIC)
    seen = cv2.GaussianBlur(seen * light[:, :, None], (0, 0), 0.8)
    seen += chance.normal(0, 2.5, seen.shape)
    placed = [cv2.perspectiveTransform(each[None], view)[0] for each in corners]
    return np.clip(seen, 0, 255).astype(np.uint8), placed


def write(folder: Path) -> None:
    """Write the gallery, a photograph of a binder page, and what is on it."""
    cards = catalogue()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "gallery.jsonl").open("w", encoding="utf-8") as file:
        for card in cards:
            _save(draw(card), folder / "images" / f"{card.card_id}.jpg", (300, 420), 80)
            row = {
                "id": card.card_id,
                "name": card.name,
                "set": card.set_code,
                "number": f"{card.number:03d}/200",
                "language": card.language,
                "images": [f"images/{card.card_id}.jpg"],
            }
            file.write(json.dumps(row) + "\n")
    novel = replace(cards[0], card_id="novel", art=77)
    on_page = [*cards[:5], *cards[7:9], novel, unseen_reprint(cards[-2])]
    page, corners = photograph(on_page, columns=3, seed=4)
    _save(page, folder / "binder.jpg", (page.shape[1], page.shape[0]), 82)
    truth = [
        {**asdict(card), "quad": np.round(quad, 1).tolist(), "known": card in cards}
        for card, quad in zip(on_page, corners, strict=True)
    ]
    (folder / "truth.json").write_text(json.dumps({"binder.jpg": truth}, indent=1) + "\n")


def _save(picture: Picture, path: Path, size: tuple[int, int], quality: int) -> None:
    resized = Pictures.fromarray(picture).resize(size, Pictures.Resampling.LANCZOS)
    resized.save(path, "JPEG", quality=quality)


if __name__ == "__main__":
    write(Path(__file__).parent / "cards")
