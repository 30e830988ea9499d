"""Whether an aligned card agrees with a template, and with which of several look-alikes it agrees.

A photograph differs from the template everywhere: it is blurred, shaded, tinted and noisy. All of
that is either the same in every part of the card or changes slowly across it, so it can be measured
on the card itself: the template is blurred and lit as the photograph is, and what is still
different is held against what other parts of the same card with as much detail leave. A printed
number that is another number stands out, and it does so on a sharp scan and on a poor one by
whatever the scan allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from core.card_verification import FRAME_PX, Colour, Plane
from core.opencv import cv2

Mask = NDArray[np.bool_]
"""Shape (420, 300)."""
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ComparisonSpec:
    """How pixels are compared.

    Attributes:
        kernel_px: Side of the kernel that blurs a template as the photograph is, 9: the motion of
            a hand-held phone at this size.
        kernel_points: Places with detail from which the kernel is computed.
        light_px: Width of the neighbourhood within which light does not change, 36 px: a streak of
            glare is about as wide, a set symbol is half of it.
        haze_px: Width of the narrowest reflection, 7 px: it adds the same to all colours, and
            is told from print by being smooth and colourless.
        print_px: Only differences finer than this count against a print, 4 px: strokes and outlines
            are, what is left of a reflection is not.
        edge_px: The outermost pixels show the table as often as the card.
        bright: Above this level in all channels a photograph has no detail left.
        step_px: From one window, in which agreement is judged, to the next.
        window: Side of the windows in steps: 15 px are two letters.
        differ: Templates differ where their colours are this many levels apart, after blurring.
        least_common: Share of what is seen that all look-alikes must have in common for the light
            to be measured there alone, 0.4; with less, each is shown in the light that suits it.
        strip_height: Share of the card's height, at its lower edge, where cards carry their set
            symbol and number.
        odd: Logarithm of the excess from which a place shows something else, 2.2: nine times the
            usual difference.
        compact_px: What another print changes is at most so high, 36 px, a twelfth of the card;
        compact_area: and at most so large, in squares of ``step_px``.
        texture: Standard deviation in grey levels from which a window shows something.
        light_error: Levels by which the light of a whole part of the card may be wrong, 3: it must
            not decide by its mere extent.
        grain_px: Area within which differences are not independent of each other.
    """

    kernel_px: int = 9
    kernel_points: int = 2500
    light_px: float = 36.0
    haze_px: float = 7.0
    print_px: float = 4.0
    edge_px: int = 6
    bright: float = 250.0
    step_px: int = 5
    window: int = 3
    differ: float = 10.0
    least_common: float = 0.4
    strip_height: float = 0.12
    odd: float = 2.2
    compact_px: float = 36.0
    compact_area: int = 140
    texture: float = 3.0
    light_error: float = 3.0
    grain_px: float = 12.0


@dataclass(frozen=True)
class Aligned:
    """A card in the frame of the template that it was aligned with.

    Attributes:
        colour: Its pixels.
        seen: Where it has any, and they are not burnt out.
    """

    colour: Colour
    seen: Mask


@dataclass(frozen=True)
class Shown:
    """A template as a photograph would show it: blurred and lit like it.

    Attributes:
        colour: Its pixels.
    """

    colour: Colour

    @cached_property
    def detail(self) -> Plane:
        """Squared gradient: where the least shift leaves most."""
        return _gradient(self.colour)


def same_artwork(first: Plane, second: Plane, side_px: int = 9) -> float:
    """Share of what two templates show that is the same in both, 0 to 1.

    Rows of type agree with rows of type, whatever the words; a frame that is darker than the
    picture in one and lighter in the other counts as the same.

    Args:
        first: Grey with local contrast divided out, reduced.
        second: Another of the same shape.
        side_px: Side of the windows in which the two are correlated.
    """
    window = (side_px, side_px)

    def mean(values: Plane) -> Plane:
        return np.asarray(cv2.boxFilter(values, -1, window))

    a, b = (cv2.GaussianBlur(plane, (0, 0), 0.8) for plane in (first, second))
    mean_a, mean_b = mean(a), mean(b)
    variance_a = np.maximum(mean(a * a) - mean_a**2, 0)
    variance_b = np.maximum(mean(b * b) - mean_b**2, 0)
    covariance = mean(a * b) - mean_a * mean_b
    shows = np.sqrt(np.maximum(variance_a, variance_b))
    shows = np.minimum(shows, np.median(shows))
    agrees = covariance**2 > 0.5 * np.maximum(variance_a * variance_b, 1e-6)
    return float((shows * agrees).sum() / max(float(shows.sum()), 1e-6))


@dataclass(frozen=True)
class Windows:
    """Agreement of a card with one template in overlapping windows, each of shape (n,).

    Attributes:
        places: Centre of each, x and y, shape (n, 2), in the frame.
        agree: Correlation over the pixels and colours of the window, -1 to 1.
        excess: Natural logarithm of how much more is different than windows with as much detail
            leave on this card; 0 is typical.
        detail: Standard deviation of the template in the window, as it would be seen.
    """

    places: NDArray[np.float64]
    agree: Vector
    excess: Vector
    detail: Vector


def above_strip(spec: ComparisonSpec) -> Mask:
    """All of the card but the strip at its lower edge."""
    mask = np.ones(FRAME_PX[::-1], bool)
    mask[round(FRAME_PX[1] * (1 - spec.strip_height)) :] = False
    return mask


def seen_pixels(card: Colour, inside: Mask, spec: ComparisonSpec) -> Mask:
    """Where a card shows anything: inside its outline, and not burnt out."""
    edge = spec.edge_px
    kept = np.zeros_like(inside)
    kept[edge:-edge, edge:-edge] = inside[edge:-edge, edge:-edge]
    burnt = (card >= spec.bright).all(axis=2).astype(np.uint8)
    burnt = cv2.dilate(burnt, np.ones((3, 3), np.uint8)) > 0
    return kept & ~burnt


def same_tone(template: Colour, reference: Colour) -> Colour:
    """A template with the brightness, contrast and tint of another of the same artwork.

    One straight line per channel for the whole card: scans of one card differ by that, and a frame
    of another colour must stay one. Every block of the card that resembles the other proposes its
    own lines, and those are taken on which most of what the two show agrees.
    """
    columns, rows = 6, 8
    size = (FRAME_PX[0] // 4, FRAME_PX[1] // 4)
    x, y = (cv2.resize(i, size, interpolation=cv2.INTER_AREA) for i in (template, reference))

    def mean(values: Colour) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA))

    mean_x, mean_y = mean(x), mean(y)
    variance_x = np.maximum(mean(x * x) - mean_x**2, 0)
    variance_y = np.maximum(mean(y * y) - mean_y**2, 0)
    covariance = mean(x * y) - mean_x * mean_y
    alike = covariance.sum(axis=2) > 0.8 * np.sqrt(variance_x * variance_y).sum(axis=2) + 4.0
    slopes = np.clip((covariance + 60.0) / (variance_x + 60.0), 0.6, 1.7)[alike]
    offsets = mean_y[alike] - slopes * mean_x[alike]
    one = np.ones((1, 3), np.float32)
    slopes, offsets = np.vstack([one, slopes]), np.vstack([0 * one, offsets])
    worth = np.minimum(np.sqrt(_gradient(y)), 12.0).reshape(-1)[::3] + 1.0
    agree = np.ones((len(slopes), len(worth)), bool)
    for channel in range(3):
        left, right = (side[..., channel].reshape(-1)[::3] for side in (x, y))
        lines = slopes[:, channel, None] * left + offsets[:, channel, None]
        agree &= np.abs(lines - right) < 8
    best = int((agree @ worth).argmax())
    return template * slopes[best] + offsets[best]


def differing(templates: Sequence[Colour], spec: ComparisonSpec) -> Mask:
    """Where any of some templates, in one frame and tone, differs from the first.

    Differences are blurred before they are judged: templates are not equally sharp.
    """
    apart = np.zeros(templates[0].shape[:2], np.float32)
    for other in templates[1:]:
        gap = largest(cv2.GaussianBlur(other - templates[0], (0, 0), 2.0))
        apart = np.maximum(apart, gap)
    return apart > spec.differ


def blurred_like(
    templates: Sequence[Colour], card: Colour, where: Mask, spec: ComparisonSpec
) -> list[Colour]:
    """Templates as blurred, or as sharp, as a photograph of the same card.

    The kernel is the one that leaves least between the two: it holds the lens, the motion of the
    hand, the JPEG of either side, and what is left of a shift.

    Args:
        templates: What the card may look like.
        card: What it looks like, in the same frame.
        where: Pixels that may be expected to agree.
        spec: Size of the kernel.
    """
    seen = _detail(_grey(card))
    return [_blurred(template, seen, where, spec) for template in templates]


def _blurred(template: Colour, seen: Plane, where: Mask, spec: ComparisonSpec) -> Colour:
    known = _detail(_grey(template))
    half = spec.kernel_px // 2
    strength = cv2.GaussianBlur(known * known, (0, 0), 2.0)
    strength[~where] = 0
    strength[:half], strength[-half:] = 0, 0
    strength[:, :half], strength[:, -half:] = 0, 0
    count = min(spec.kernel_points, int((strength > 0).sum()))
    if count < spec.kernel_px**2:
        return template
    order = (
        np.argpartition(strength.reshape(-1), -3 * count)[-3 * count :]
        if (3 * count < strength.size)
        else np.flatnonzero(strength.reshape(-1) > 0)
    )
    chosen = np.sort(order[strength.reshape(-1)[order] > 0])[::3]
    y, x = np.divmod(chosen, FRAME_PX[0])
    windows = np.lib.stride_tricks.sliding_window_view(known, (spec.kernel_px, spec.kernel_px))
    patches = windows[y - half, x - half].reshape(len(chosen), -1)
    goal = seen[y, x]
    kernel = _solve(patches, goal)
    off = np.abs(patches @ kernel - goal)
    kept = off <= np.quantile(off, 0.85)
    kernel = _solve(patches[kept], goal[kept])
    total = float(kernel.sum())
    if total < 0.2:
        return template
    square = (kernel / total).reshape(spec.kernel_px, spec.kernel_px).astype(np.float32)
    return np.asarray(cv2.filter2D(template, -1, square, borderType=cv2.BORDER_REPLICATE))


def _solve(patches: Plane, goal: Plane) -> Plane:
    gram = patches.T @ patches
    gram[np.diag_indices_from(gram)] += 2e-3 * float(np.trace(gram)) / len(gram)
    return np.linalg.solve(gram, patches.T @ goal).astype(np.float32)


def _grey(colour: Colour) -> Plane:
    return np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))


def _detail(grey: Plane) -> Plane:
    return grey - cv2.GaussianBlur(grey, (0, 0), 8.0)


@dataclass(frozen=True)
class Light:
    """How a photograph is lit: its pixels are about ``gain * template + offset``, per channel."""

    gain: Colour
    offset: Colour

    def on(self, template: Colour) -> Colour:
        """A template in this light."""
        return np.clip(self.gain * template + self.offset, 0, 255)


def light_of(card: Colour, template: Colour, where: Mask, spec: ComparisonSpec) -> Light:
    """The light of a photograph: what changes slowly across the card, and the shine on top of it.

    Args:
        card: The photograph.
        template: What it shows, as blurred as it is.
        where: Pixels where the two are expected to show the same; what differs most of them is
            left out in a second pass.
        spec: How slowly light changes.
    """
    half = (FRAME_PX[0] // 2, FRAME_PX[1] // 2)
    card, template = (
        np.asarray(cv2.resize(picture, half, interpolation=cv2.INTER_AREA))
        for picture in (card, template)
    )
    weight = cv2.resize(where.astype(np.float32), half, interpolation=cv2.INTER_AREA)
    weight = np.where(weight > 0.99, np.float32(1), np.float32(0))
    light, haze = _light(card, template, weight, spec), np.float32(0)
    for width in (spec.haze_px * 2, spec.haze_px, spec.haze_px):
        kept = weight
        off = largest(card - light.on(template) - haze)
        if weight.any():
            kept = weight * (off < max(8.0, 2.5 * float(np.median(off[weight > 0]))))
        haze = _haze(card - light.on(template), kept, width / 2)
        light = _light(card - haze, template, kept, spec)
    haze = _haze(card - light.on(template), kept, spec.haze_px / 2)
    fields = (cv2.resize(values, FRAME_PX) for values in (light.gain, light.offset + haze))
    return Light(*(np.asarray(values) for values in fields))


def _haze(difference: Colour, weight: Plane, width: float) -> Colour:
    """What a reflection adds: the same to all colours, and smooth. Shape (height, width, 1)."""

    def spread(values: Plane) -> Plane:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), width))

    veil = spread(average(difference) * weight) / (spread(weight) + np.float32(0.1))
    return veil[..., None].astype(np.float32, copy=False)


def average(colour: Colour) -> Plane:
    """Mean of the channels."""
    return np.asarray(cv2.transform(colour, np.full((1, 3), 1 / 3, np.float32)))


def largest(colour: Colour) -> Plane:
    """Largest absolute value of the channels."""
    red, green, blue = cv2.split(np.abs(colour))
    return np.asarray(cv2.max(cv2.max(red, green), blue))


@cache
def _spreading(count: int, sigma: float) -> Plane:
    """What a Gaussian does to a row of so many pixels, as a matrix.

    Where it is wide and the row short, many rows are multiplied by it faster than filtered.
    """
    kernel = cv2.getGaussianKernel(round(sigma * 8 + 1) | 1, sigma, cv2.CV_32F)
    one = np.ones((1, 1), np.float32)
    return np.asarray(cv2.sepFilter2D(np.eye(count, dtype=np.float32), -1, one, kernel))


def _for_colours(weight: Plane) -> Colour:
    """A weight per pixel for each of its channels: numpy is slow where it has to repeat one."""
    return np.asarray(cv2.merge([weight] * 3))


def _light(card: Colour, template: Colour, weight: Plane, spec: ComparisonSpec) -> Light:
    height, width = weight.shape
    step = 5 * width / FRAME_PX[0]
    size = (round(width / step), round(height / step))
    along_x, along_y = (_spreading(side, spec.light_px / 5) for side in size)
    weights = _for_colours(weight)

    def spread(values: NDArray[np.float32]) -> Colour:
        small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        down = along_y @ np.asarray(small).reshape(size[1], -1)
        return np.matmul(along_x, down.reshape(size[1], size[0], -1))

    count = spread(weight)
    total = max(float(count.mean()), 1e-6)
    weighted = template * weights
    sums = [
        spread(values)
        for values in (card * weights, weighted, card * weighted, template * weighted)
    ]
    means = [values.mean(axis=(0, 1)) / total for values in sums]
    spare = 0.02  # where nothing is seen, the light of the whole card counts
    seen, known, both, square = (
        (values + spare * mean * total) / (count + spare * total)
        for values, mean in zip(sums, means, strict=True)
    )
    overall = (means[2] - means[0] * means[1]) / np.maximum(means[3] - means[1] ** 2, 1.0)
    overall = np.clip(overall, 0.2, 3.0)
    hold = np.float32(150.0)  # variance, in squared levels, below which a place takes that gain
    covariance, variance = both - seen * known, np.maximum(square - known * known, 0)
    gain = (covariance + hold * overall) / (variance + hold)
    gain = np.clip(gain, 0.3 * overall, 2.0 * overall).astype(np.float32)
    offset = (seen - gain * known).astype(np.float32)
    whole = (cv2.resize(field, (width, height)) for field in (gain, offset))
    return Light(*(np.asarray(field) for field in whole))


@dataclass(frozen=True)
class Expected:
    """How much a photograph differs from the right template where there is so much detail.

    Attributes:
        edges: Upper limits of detail, rising, shape (n,).
        levels: Mean squared difference there, shape (n,).
        spread: Standard deviation of its logarithm between windows.
    """

    edges: Vector
    levels: Vector
    spread: float

    def at(self, detail: Plane) -> Plane:
        """Mean squared difference to expect."""
        values = np.interp(np.log(detail + 1.0), self.edges, np.log(self.levels))
        return np.exp(values).astype(np.float32)


def compare(
    aligned: Aligned, shown: Shown, trusted: Mask, spec: ComparisonSpec
) -> tuple[Windows, Expected]:
    """Agreement of a card with one template in windows all over the card.

    Args:
        aligned: The card, in the template's frame.
        shown: The template as it would be seen.
        trusted: Where the photograph ought to look like the template if it is that artwork at all;
            what is typical is learned there.
        spec: Size of the windows.
    """
    step, size = spec.step_px, (FRAME_PX[0] // spec.step_px, FRAME_PX[1] // spec.step_px)
    seen = aligned.seen.astype(np.float32)
    seen_colours = _for_colours(seen)

    def total(values: NDArray[np.float32]) -> NDArray[np.float32]:
        masked = values * (seen if values.ndim == 2 else seen_colours)
        small = cv2.resize(masked, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.blur(small, (spec.window, spec.window)))

    share = np.maximum(total(seen), np.float32(0.01))

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        means = total(values) / (share if values.ndim == 2 else share[..., None])
        return means.astype(np.float32, copy=False)

    card, known = aligned.colour, shown.colour
    difference = (card - known) * seen_colours
    difference -= cv2.GaussianBlur(difference, (0, 0), spec.print_px)
    detail, error = mean(shown.detail), mean(average(difference * difference))
    mean_a, mean_b = mean(card), mean(known)

    def together(values: Colour, product: Colour) -> Plane:  # over the channels
        return 3 * mean(average(values)) - product.sum(axis=2)

    variance_a = np.maximum(together(card * card, mean_a**2), 0)
    variance_b = np.maximum(together(known * known, mean_b**2), 0)
    covariance = together(card * known, mean_a * mean_b)
    agree = covariance / np.sqrt(np.maximum(variance_a * variance_b, 1.0))
    covered = share > 0.6
    usual = covered & (
        cv2.resize(trusted.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.6
    )
    expected = _expected(error, detail, usual)
    excess = np.log(error + 0.3) - np.log(expected.at(detail) + 0.3)
    y, x = np.nonzero(covered)
    return (
        Windows(
            places=(np.column_stack([x, y]).astype(np.float64) + 0.5) * step - 0.5,
            agree=np.clip(agree[covered], -1, 1).astype(np.float64),
            excess=excess[covered].astype(np.float64),
            detail=np.sqrt(variance_b[covered] / 3.0).astype(np.float64),
        ),
        expected,
    )


def _gradient(shown: Colour) -> Plane:
    across = cv2.Sobel(shown, cv2.CV_32F, 1, 0, scale=0.125)
    down = cv2.Sobel(shown, cv2.CV_32F, 0, 1, scale=0.125)
    return average(across * across + down * down)


def _expected(error: Plane, detail: Plane, usual: Mask) -> Expected:
    """Median difference among windows of like detail, never falling with detail."""
    values = np.log(detail[usual].astype(np.float64) + 1.0)
    errors = error[usual].astype(np.float64) + 0.3
    if len(values) < 60:
        return Expected(np.array([0.0]), np.array([max(float(error.mean()), 1.0)]), 1.0)
    order = np.argsort(values)
    groups = np.array_split(order, 10)
    edges = np.array([np.median(values[group]) for group in groups])
    levels = np.array([np.median(errors[group]) for group in groups])
    levels = np.maximum.accumulate(levels)
    typical = np.interp(values, edges, np.log(levels))
    spread = 1.4826 * float(np.median(np.abs(np.log(errors) - typical)))
    return Expected(edges, levels, max(spread, 0.1))


def hidden(
    aligned: Aligned, shown: Sequence[Shown], expected: Expected, spec: ComparisonSpec
) -> Mask:
    """Where a card shows what no candidate has, over more than a symbol and a number take.

    Other cards that lie on top, fingers and the cores of reflections say nothing about the print.
    They reach in from the outline or run across the card; what another print changes is compact.

    Args:
        aligned: The card.
        shown: The candidates in its frame.
        expected: What the right one leaves.
        spec: How much is how large.
    """
    size = (FRAME_PX[0] // spec.step_px, FRAME_PX[1] // spec.step_px)

    def small(values: Plane) -> Plane:
        return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA))

    seen = aligned.seen.astype(np.float32)
    share = np.maximum(small(seen), np.float32(0.01))
    excess = np.full(size[::-1], np.inf, np.float32)
    for picture in shown:
        error = small(average((aligned.colour - picture.colour) ** 2) * seen) / share
        usual = expected.at(cv2.blur(small(picture.detail), (3, 3)))
        excess = np.minimum(excess, np.log((error + 0.3) / (usual + 0.3)))
    odd = ((excess > spec.odd) & (share > 0.5)).astype(np.uint8)
    odd = cv2.morphologyEx(odd, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(odd, connectivity=8)
    covered = np.zeros_like(odd)
    for label in range(1, count):
        _, _, _, height, area = boxes[label]
        if height * spec.step_px > spec.compact_px or area > spec.compact_area:
            covered[labels == label] = 1
    covered = cv2.dilate(covered, np.ones((3, 3), np.uint8))
    large = cv2.resize(covered, FRAME_PX, interpolation=cv2.INTER_NEAREST)
    return np.asarray(large) > 0


def strip_seen(aligned: Aligned, shown: Shown, spec: ComparisonSpec) -> float:
    """Share of what is printed on the strip that can be seen, 0 to 1, in the half that shows less.

    Args:
        aligned: The card, without what is hidden.
        shown: What it should show.
        spec: Where the strip is.
    """
    edge = spec.edge_px
    rows = slice(round(FRAME_PX[1] * (1 - spec.strip_height)), FRAME_PX[1] - 2 * edge)
    middle = FRAME_PX[0] // 2
    printed = np.maximum(np.sqrt(shown.detail) - 2.0, 0.0)
    shares: list[float] = []
    for columns in (slice(2 * edge, middle), slice(middle, FRAME_PX[0] - 2 * edge)):
        ink = printed[rows, columns]
        if ink.mean() > 0.2:
            shares.append(float((ink * aligned.seen[rows, columns]).sum() / ink.sum()))
    return min(shares, default=1.0)


def versus(
    aligned: Aligned, first: Shown, second: Shown, expected: Expected, spec: ComparisonSpec
) -> tuple[float, float]:
    """Which of two look-alikes a card is, judged only where the two differ.

    Differences count squared, so that a symbol of another colour outweighs many small misfits along
    type; what lies on top of the card has to be left out of ``aligned.seen`` before.

    Args:
        aligned: The card.
        first: A look-alike in the card's frame.
        second: Another one.
        expected: What the right one leaves.
        spec: What counts as a difference.

    Returns:
        Natural logarithm of the likelihood ratio of the first to the second; and where the card
        lies between the two, 1 at the first, -1 at the second, within -2 and 2. Both change sign
        when the two are exchanged, and are 0 where the two do not differ.
    """
    apart = cv2.GaussianBlur(largest(first.colour - second.colour), (0, 0), 1.0)
    where = np.flatnonzero((aligned.seen & (apart > 0.5 * spec.differ)).reshape(-1))
    if len(where) == 0:
        return 0.0, 0.0
    card, one, other = (
        np.take(picture.reshape(-1, 1, 3), where, axis=0)
        for picture in (aligned.colour, first.colour, second.colour)
    )
    details = [np.take(picture.detail.reshape(-1), where) for picture in (first, second)]
    detail = (details[0] + details[1]) * np.float32(0.5)
    scale = expected.at(detail) + spec.light_error**2
    misfits = [average((card - pixels) ** 2)[:, 0] / scale for pixels in (one, other)]
    gain = float((misfits[1] - misfits[0]).sum(dtype=np.float64)) / 2
    gap = one - other
    toward = ((card - (one + other) / 2) * gap).sum(dtype=np.float64)
    leaning = 2 * float(toward) / max(float((gap * gap).sum(dtype=np.float64)), 1.0)
    return gain / spec.grain_px, float(np.clip(leaning, -2, 2))
