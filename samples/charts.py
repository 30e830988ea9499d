"""Charts and schematics of the sample papers, drawn as vectors: pictures that raise no pair."""

import numpy as np
import pymupdf

from samples.micrographs import Image, blur
from samples.typeset import Draw

INK = (0.1, 0.1, 0.1)
PALETTE = ((0.22, 0.42, 0.69), (0.84, 0.37, 0.24), (0.45, 0.62, 0.35), (0.55, 0.55, 0.58))


def _by(point: pymupdf.Point, dx: float, dy: float) -> pymupdf.Point:
    return pymupdf.Point(point.x + dx, point.y + dy)


def _dots(
    page: pymupdf.Page,
    points: list[tuple[float, float]],
    radius: float,
    fill: tuple[float, float, float],
    color: tuple[float, float, float] | None = None,
) -> None:
    """Many circles as one drawing; one by one they would take a second per chart."""
    shape = page.new_shape()
    for point in points:
        shape.draw_circle(point, radius)
    shape.finish(color=color, fill=fill, width=0.4)
    shape.commit()


def _axes(
    page: pymupdf.Page, rect: pymupdf.Rect, y_label: str, x_label: str, top: float
) -> pymupdf.Rect:
    """Axes with ticks; returns the plot area."""
    area = pymupdf.Rect(rect.x0 + 27, rect.y0 + 8, rect.x1 - 4, rect.y1 - 24)
    page.draw_line(area.tl, area.bl, color=INK, width=0.8)
    page.draw_line(area.bl, area.br, color=INK, width=0.8)
    for k in range(5):
        y = area.y1 - area.height * k / 4
        page.draw_line((area.x0 - 2.5, y), (area.x0, y), color=INK, width=0.7)
        text = f"{top * k / 4:g}"
        width = pymupdf.get_text_length(text, "helv", 6)
        page.insert_text((area.x0 - 4 - width, y + 2), text, fontname="helv", fontsize=6)
    middle = (area.y0 + area.y1) / 2
    length = pymupdf.get_text_length(y_label, "helv", 6.5)
    page.insert_text(
        (rect.x0 + 7, middle + length / 2), y_label, fontname="helv", fontsize=6.5, rotate=90
    )
    length = pymupdf.get_text_length(x_label, "helv", 6.5)
    at = ((area.x0 + area.x1 - length) / 2, rect.y1 - 3)
    page.insert_text(at, x_label, fontname="helv", fontsize=6.5)
    return area


def bars(seed: int, names: tuple[str, ...], y_label: str) -> Draw:
    """Bars with whiskers, single values and a bracket of significance."""

    def draw(page: pymupdf.Page, rect: pymupdf.Rect) -> None:
        rng = np.random.default_rng([seed, 1])
        area = _axes(page, rect, y_label, "", 100)
        step = area.width / len(names)
        tops: list[float] = []
        for k, name in enumerate(names):
            value = rng.uniform(25, 72)
            middle = area.x0 + step * (k + 0.5)
            y = area.y1 - area.height * value / 100
            bar = pymupdf.Rect(middle - step * 0.3, y, middle + step * 0.3, area.y1)
            page.draw_rect(bar, color=INK, fill=PALETTE[k % len(PALETTE)], width=0.6)
            spread = area.height * rng.uniform(0.05, 0.1)
            page.draw_line((middle, y - spread), (middle, y + spread), color=INK, width=0.7)
            for end in (y - spread, y + spread):
                page.draw_line((middle - 3, end), (middle + 3, end), color=INK, width=0.7)
            values = [
                (middle + rng.uniform(-0.22, 0.22) * step, y + rng.normal(0, spread * 0.8))
                for _ in range(7)
            ]
            _dots(page, values, 1.2, (1, 1, 1), INK)
            tops.append(y - spread)
            width = pymupdf.get_text_length(name, "helv", 6)
            at = (middle - width / 2, area.y1 + 9)
            page.insert_text(at, name, fontname="helv", fontsize=6)
        y = max(area.y0 + 1, min(tops[:2]) - 8)
        first, second = area.x0 + step * 0.5, area.x0 + step * 1.5
        page.draw_polyline(
            [(first, y + 3), (first, y), (second, y), (second, y + 3)], color=INK, width=0.6
        )
        page.insert_text(((first + second) / 2 - 3, y - 0.5), "**", fontname="helv", fontsize=7)

    return draw


def scatter(seed: int, x_label: str, y_label: str, count: int = 90) -> Draw:
    """Two groups of points and a fitted line."""

    def draw(page: pymupdf.Page, rect: pymupdf.Rect) -> None:
        rng = np.random.default_rng([seed, 2])
        area = _axes(page, rect, y_label, x_label, 4)
        slope = rng.uniform(0.4, 0.7)
        x = np.clip(rng.normal(0.5, 0.2, count), 0.04, 0.96)
        y = np.clip(0.15 + slope * x + rng.normal(0, 0.1, count), 0.03, 0.97)
        points = [
            (area.x0 + a * area.width, area.y1 - b * area.height) for a, b in zip(x, y, strict=True)
        ]
        for k in (0, 1):
            _dots(page, points[k::2], 1.4, PALETTE[k])
        start = (area.x0 + 0.03 * area.width, area.y1 - 0.16 * area.height)
        end = (area.x0 + 0.97 * area.width, area.y1 - (0.15 + slope * 0.97) * area.height)
        page.draw_line(start, end, color=INK, width=0.9, dashes="[3 2] 0")
        text = f"r = {rng.uniform(0.4, 0.8):.2f}"
        page.insert_text((area.x0 + 6, area.y0 + 6), text, fontname="heit", fontsize=6.5)

    return draw


def survival(seed: int, names: tuple[str, ...]) -> Draw:
    """Stepped survival curves with ticks where animals left the study."""

    def draw(page: pymupdf.Page, rect: pymupdf.Rect) -> None:
        rng = np.random.default_rng([seed, 3])
        area = _axes(page, rect, "Surviving (%)", "Days", 100)
        for k, name in enumerate(names):
            alive = 1.0
            x, points = 0.0, [(area.x0, area.y0)]
            while x < 1 and alive > 0.1:
                x = min(1.0, x + rng.exponential(0.09 + 0.05 * k))
                points.append((area.x0 + x * area.width, points[-1][1]))
                if x < 1:
                    alive -= rng.uniform(0.03, 0.1)
                    points.append((points[-1][0], area.y1 - alive * area.height))
                if rng.random() < 0.3:
                    at = points[-1]
                    page.draw_line((at[0], at[1] - 2.5), (at[0], at[1] + 2.5), width=0.6)
            page.draw_polyline(points, color=PALETTE[k], width=1.2)
            y = area.y0 + 6 + 9 * k
            page.draw_line(
                (area.x1 - 52, y - 2), (area.x1 - 40, y - 2), color=PALETTE[k], width=1.2
            )
            page.insert_text((area.x1 - 37, y), name, fontname="helv", fontsize=6.5)

    return draw


def curves(seed: int, names: tuple[str, ...], x_label: str, y_label: str) -> Draw:
    """Time courses with markers and whiskers."""

    def draw(page: pymupdf.Page, rect: pymupdf.Rect) -> None:
        rng = np.random.default_rng([seed, 4])
        area = _axes(page, rect, y_label, x_label, 2)
        for k, name in enumerate(names):
            rate, end = rng.uniform(2, 6), rng.uniform(0.25, 0.85)
            x = np.linspace(0.02, 0.97, 9)
            y = np.clip(end * (1 - np.exp(-rate * x)) + rng.normal(0, 0.02, 9), 0.02, 0.95)
            points = [
                (area.x0 + a * area.width, area.y1 - b * area.height)
                for a, b in zip(x, y, strict=True)
            ]
            page.draw_polyline(points, color=PALETTE[k], width=1.1)
            for at in points:
                half = area.height * rng.uniform(0.02, 0.05)
                page.draw_line((at[0], at[1] - half), (at[0], at[1] + half), color=PALETTE[k])
                page.draw_circle(at, 1.8, color=PALETTE[k], fill=(1, 1, 1), width=0.9)
            at = (area.x0 + 6, area.y0 + 5 + 8 * k)
            page.insert_text(at, name, fontname="helv", fontsize=6.5, color=PALETTE[k])

    return draw


def flow(seed: int, shift: float) -> Draw:
    """Flow cytometry: a cloud of dots in a frame with quadrants, one raster image as exported."""

    def draw(page: pymupdf.Page, rect: pymupdf.Rect) -> None:
        rng = np.random.default_rng([seed, 6])
        side = 300
        low = rng.multivariate_normal([0.3, 0.32], [[0.008, 0.003], [0.003, 0.009]], 3600)
        high = rng.multivariate_normal([0.66, 0.4 + shift], [[0.012, 0], [0, 0.012]], 1500)
        dots = np.vstack([low, high, rng.uniform(0, 1, (140, 2))])
        dots = dots[(dots > 0.01).all(1) & (dots < 0.99).all(1)]
        x, y = (dots[:, 0] * side).astype(int), side - 1 - (dots[:, 1] * side).astype(int)
        count = np.zeros((side, side), np.float32)
        np.add.at(count, (y, x), 1)
        heat = np.clip(blur(count, 5) * 5, 0, 1)[:, :, None]
        cold, hot = np.array([40, 70, 190.0]), np.array([225, 60, 30.0])
        image: Image = np.full((side, side, 3), 255, np.uint8)
        colors = (cold * (1 - heat) + hot * heat).astype(np.uint8)
        image[count > 0] = colors[count > 0]
        plot = pymupdf.Rect(rect.x0 + 20, rect.y0 + 6, rect.x1 - 2, rect.y1 - 16)
        pixmap = pymupdf.Pixmap(pymupdf.csRGB, side, side, image.tobytes(), False)
        page.insert_image(plot, pixmap=pixmap, keep_proportion=False)
        page.draw_rect(plot, color=INK, width=0.8)
        cross_x, cross_y = plot.x0 + plot.width * 0.48, plot.y0 + plot.height * 0.45
        page.draw_line((cross_x, plot.y0), (cross_x, plot.y1), color=INK, width=0.6)
        page.draw_line((plot.x0, cross_y), (plot.x1, cross_y), color=INK, width=0.6)
        share = rng.uniform(8, 40)
        at = (plot.x1 - 22, plot.y0 + 8)
        page.insert_text(at, f"{share:.1f}", fontname="helv", fontsize=6.5)
        at = (plot.x0 + plot.width / 2 - 14, rect.y1 - 5)
        page.insert_text(at, "Marker A", fontname="helv", fontsize=6.5)
        at = (rect.x0 + 12, (plot.y0 + plot.y1) / 2 + 14)
        page.insert_text(at, "Marker B", fontname="helv", fontsize=6.5, rotate=90)

    return draw


def schematic(words: tuple[str, str, str, str]) -> Draw:
    """A cell with a membrane, two factors and a nucleus, with arrows between them."""

    def draw(page: pymupdf.Page, rect: pymupdf.Rect) -> None:
        page.draw_rect(rect, color=None, fill=(0.96, 0.97, 0.99))
        w, h = rect.width, rect.height
        heads: list[tuple[float, float]] = []
        tails = page.new_shape()
        for k in range(int(w // 7)):
            x = rect.x0 + 4 + k * 7
            y = rect.y0 + h * 0.2 + 4 * np.sin(k / 3)
            for dy, way in ((0, 1), (12, -1)):
                heads.append((x, y + dy))
                for dx in (-1, 1):
                    start = (x + dx, y + dy + 2.2 * way)
                    tails.draw_line(start, (x + 1.4 * dx, y + dy + 6 * way))
        tails.finish(color=INK, width=0.4)
        tails.commit()
        _dots(page, heads, 2.2, (0.95, 0.8, 0.5), (0.5, 0.4, 0.2))
        nucleus = pymupdf.Rect(
            rect.x0 + w * 0.58, rect.y0 + h * 0.58, rect.x0 + w * 0.96, rect.y0 + h * 0.93
        )
        page.draw_oval(nucleus, color=(0.2, 0.3, 0.6), fill=(0.8, 0.86, 0.97), width=1.2)
        spots = [(0.23, 0.47), (0.23, 0.83), (0.72, 0.43)]
        half = min(24, w * 0.19)
        points = [pymupdf.Point(rect.x0 + x * w, rect.y0 + y * h) for x, y in spots]
        for k, (at, word) in enumerate(zip(points, words[:3], strict=True)):
            box = pymupdf.Rect(at.x - half, at.y - 7, at.x + half, at.y + 7)
            page.draw_rect(box, color=INK, fill=PALETTE[k], width=0.6, radius=0.4)
            width = pymupdf.get_text_length(word, "hebo", 6)
            page.insert_text(
                (at.x - width / 2, at.y + 2), word, fontname="hebo", fontsize=6, color=(1, 1, 1)
            )
        middle = pymupdf.Point((nucleus.x0 + nucleus.x1) / 2, (nucleus.y0 + nucleus.y1) / 2)
        width = pymupdf.get_text_length(words[3], "helv", 6.5)
        at = (middle.x - width / 2, middle.y + 2)
        page.insert_text(at, words[3], fontname="helv", fontsize=6.5)
        for start, end in (
            (_by(points[0], 0, 9), _by(points[1], 0, -10)),
            (_by(points[0], half + 2, -1), _by(points[2], -half - 2, 1)),
            (_by(points[2], 2, 9), _by(middle, 0, -h * 0.19)),
        ):
            page.draw_line(start, end, color=INK, width=1)
            way = (end - start) / max(abs(end - start), 1e-6)
            side = pymupdf.Point(-way.y, way.x) * 2.4
            back = end - way * 5
            page.draw_polyline([end, back + side, back - side], fill=INK, color=INK, closePath=True)

    return draw
