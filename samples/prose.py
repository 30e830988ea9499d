"""Running text for the sample papers: readable English about work that was never done.

Sentences are patterns with slots; each paper brings its own words for them. Nobody should mistake
the result for science, and nothing in it names a real person, place, gene or finding.
"""

from dataclasses import dataclass

import numpy as np

INTRODUCTION = (
    "How {process} is kept within narrow limits in {tissue} has been asked for as long as {tissue} "
    "could be kept in culture.",
    "Early descriptions treated {process} as a passive consequence of growth, a view that is hard "
    "to reconcile with its speed.",
    "Work on {organism} suggested that a small group of factors, {protein} among them, sets the "
    "pace.",
    "{protein} is a {size} protein with two folded domains and a long, poorly conserved linker.",
    "It was first noticed in a screen for genes whose loss makes {tissue} unusually transparent.",
    "Whether {protein} acts directly, or only through its partner {partner}, has remained open.",
    "Two difficulties stand in the way: the factor is scarce, and its loss is compensated within "
    "days.",
    "The available antibodies do not distinguish {protein} from its closest relative, which is "
    "present in every {cell} we examined.",
    "An acute and reversible removal would separate the first effects from later adaptation.",
    "Here we use {treatment} to remove {protein} within one hour and follow {process} in single "
    "cells.",
    "We find that {protein} is needed early, that {partner} is not, and that the defect is "
    "repaired once the protein returns.",
    "These observations place {protein} upstream of {process} rather than downstream, as had been "
    "assumed.",
    "A simple model with two parameters accounts for the data without further assumptions.",
    "We also describe where the model fails, which may be of more use than where it succeeds.",
    "Similar questions have been raised for {organism}, although the preparation there does not "
    "allow a direct comparison.",
    "Part of the disagreement comes from the word itself: {process} has been used for at least "
    "three different things.",
    "We use it for the change that can be seen under the microscope within the first hour, and "
    "for nothing else.",
    "In this sense {process} is fast, it is reversible, and it happens in every {cell} of a "
    "healthy culture.",
    "Factors that act late were found by deletion, because a deletion leaves days for everything "
    "else to settle.",
    "Factors that act early must be sought by other means, of which {treatment} is the simplest.",
    "It binds {protein} and nothing else that has been tested, and it can be washed out.",
    "A side effect on the growth of {tissue} has been reported once and was not seen here.",
    "The partner {partner} offers itself as a control, since it is found at the same place and "
    "in the same amount.",
    "Figures in this field often show single cells; we show whole fields, and say how they were "
    "chosen.",
)

RESULTS = (
    "We first asked where {protein} is found in {tissue} (Fig. {figure}).",
    "In untreated {cell}s the signal was strongest at the periphery and absent from nucleoli.",
    "After {treatment} the signal fell to {percent} % of the starting value within {minutes} min "
    "(Fig. {figure}).",
    "Cells that had divided during the experiment were excluded, which did not change the outcome.",
    "The number of cells per field was the same in both groups ({count} ± {spread}).",
    "Loss of {protein} changed {process} in a way that could be seen without any measurement.",
    "Quantification confirmed this impression: the median fell from {ratio} to {small} (n = "
    "{count} cells from three cultures, Fig. {figure}).",
    "The effect was present in every culture, although its size differed between them.",
    "No such change followed removal of {partner}, alone or together with its relative.",
    "To exclude an effect of the solvent, we repeated the experiment with half the concentration.",
    "The shorter form of {protein}, which lacks the linker, did not restore {process} "
    "(Fig. {figure}).",
    "A version in which five residues of the linker had been exchanged restored it in full.",
    "We next turned to {tissue} from {organism}, where cells cannot escape from their neighbours.",
    "Sections from {count} animals were scored by two observers who did not know the genotype.",
    "Their scores agreed in {percent} % of the fields; disagreements were settled by a third.",
    "The borders between neighbouring cells were less regular in the absence of {protein} "
    "(Fig. {figure}).",
    "At higher magnification the spaces between them were wider and contained loose material.",
    "Immunoblots showed that the amount of {partner} was unchanged, while its faster migrating "
    "form was lost (Fig. {figure}).",
    "The loading control varied by less than {small} between lanes.",
    "When {protein} was allowed to return, the faster form was seen again after {minutes} min.",
    "The time course followed a single exponential with a constant of {minutes} min.",
    "We could not detect the intermediate that a two-step mechanism would require.",
    "Inhibition of protein synthesis delayed recovery but did not abolish it.",
    "Taken together, the defect precedes any change in the abundance of {partner}.",
    "Cells at the edge of a colony behaved differently and are described separately (Fig. "
    "{figure}).",
    "There the response was slower, and about {percent} % of the cells did not respond at all.",
    "A second batch of {treatment}, from another supplier, gave the same result.",
    "The correlation between the two measures was {small} and did not depend on cell size.",
    "Fields were chosen before the channel of interest was opened.",
    "The same cells were followed for {minutes} min, after which bleaching became noticeable.",
    "The distribution was broad rather than bimodal, which argues against two populations.",
    "Mixing treated and untreated cells showed that the effect does not spread to neighbours.",
    "A careful reader will ask whether the fields shown are typical (Fig. {figure}).",
    "We therefore ranked all fields by the measured value and show the one in the middle of each "
    "group.",
    "The extremes are described in the text: in {count} fields, {percent} were below the range "
    "of the controls.",
    "No field of the control group was below the range of the treated group.",
    "Doubling the time of exposure to {treatment} made the effect stronger but not faster.",
    "Halving it had no effect on the final value, which was reached after {minutes} min in "
    "either case.",
    "We then removed {protein} twice, with {minutes} min between the two treatments (Fig. "
    "{figure}).",
    "The second response was indistinguishable from the first, so that nothing is used up.",
    "Cells that failed to respond the first time failed again in {percent} % of the cases.",
    "They did not differ from their neighbours in size, in age or in the amount of {partner}.",
    "To see whether the change begins at one place, we followed the borders of single {cell}s.",
    "It began at the side that faced away from the nearest neighbour and spread within {minutes} "
    "min.",
    "In {tissue} from older animals of {organism} the same sequence was seen, though it took "
    "longer.",
    "The delay grew with age by about {small} min per day and did not level off.",
    "A mixture of old and young {cell}s showed that age acts within the cell (Fig. {figure}).",
    "We looked for {partner} at the places where the change begins and found it in {percent} % "
    "of them.",
    "After removal of {protein} this share fell to what would be expected by chance.",
    "The two proteins could be recovered together from lysates, although in small amounts.",
    "Salt above {count} mM separated them, which points to an interaction of charged surfaces.",
    "Five residues of the linker were required for recovery, the same five that could be "
    "exchanged before.",
    "This is the one observation that the model does not explain.",
    "A control without lysate gave no signal, and a control without antibody gave none either.",
    "Measured values and the program that made the charts are kept together.",
    "None of the conclusions depends on a single culture, animal or day.",
)

DISCUSSION = (
    "The observations reported here assign {protein} an early part in {process}.",
    "They do not show that it is sufficient, and the failure of the shorter form suggests "
    "otherwise.",
    "Earlier work had removed {protein} for days, so that adaptation may have hidden its first "
    "effects.",
    "It is tempting to connect the linker with the mechanical properties of {tissue}.",
    "Against this stands the finding that five exchanged residues are tolerated.",
    "We favour a view in which {protein} brings {partner} to the place where it is modified.",
    "On this view the modification, and not the amount, of {partner} is what limits {process}.",
    "The model predicts that raising {partner} has no effect, and this is what we found.",
    "It also predicts a delay that we did not observe, for which we have no explanation.",
    "Our preparation has limits: cultures lack flow and stretch, and nothing here makes up "
    "for that.",
    "The number of animals is small, and all came from one colony.",
    "Whether the same holds in other species of {organism} remains to be seen.",
    "A structure of the complex would help, and attempts to obtain one are under way.",
    "Until then the present data constrain any mechanism to act within {minutes} min.",
    "We make no claim about {process} outside {tissue}.",
    "One may object that {treatment} is itself a disturbance, and that an untreated {cell} might "
    "behave otherwise.",
    "The return to the starting value after wash-out speaks against lasting harm, but not "
    "against a passing one.",
    "Another objection concerns the fields: whoever looks at pictures sees what stands out.",
    "For this reason the ranking was made by the program, and the observers saw the pictures in "
    "random order.",
    "The small group of cells that did not respond deserves a study of its own.",
    "If they were simply late, they should have responded to the second treatment, which most "
    "did not.",
    "If they lacked {protein}, staining should have shown it, which it did not either.",
    "Perhaps they are in a state that we have no name for yet.",
    "The observations on older animals are few, and the slope that we report has a wide interval.",
    "Nevertheless the direction is clear, and it is the direction that the model predicts.",
    "Should the linker turn out to be a spring, its stiffness can be estimated from our data.",
    "We give the estimate in the supplement and ask the reader not to take it too seriously.",
)

METHODS = (
    "{cell}s were kept in imaginary medium with 10 % serum at 37 °C and used between passages 4 "
    "and 9.",
    "{treatment} was added from a stock in buffer to a final concentration of {small} µM.",
    "Animals existed on paper only; no permission was needed and none was sought.",
    "For staining, samples were fixed for {minutes} min, washed three times and kept in the dark.",
    "Images were taken with a 40x objective at a pixel size of 0.16 µm, with the same exposure in "
    "all groups.",
    "Display ranges are the same within a figure unless stated.",
    "Sections of 4 µm were stained by the usual protocol and photographed under even illumination.",
    "For electron microscopy, blocks were cut at 70 nm and contrasted with lead.",
    "Lysates of equal protein content were separated on 10 % gels and transferred overnight.",
    "Membranes were cut before incubation so that target and control come from the same lanes.",
    "Bands were quantified by their area above a local background.",
    "Flow measurements were gated on size and on the absence of a viability dye.",
    "Groups were compared with a rank test, two-sided; exact values are given in the legends.",
    "No data were excluded other than as described.",
    "Sample sizes were chosen by habit, not by calculation.",
    "All images in this document are computed; the program that draws them is part of its source.",
    "Wash-out was done by three changes of medium, each {minutes} min apart.",
    "Lysates were made on ice, cleared for {minutes} min and kept frozen for at most a week.",
    "Antibodies were diluted to {small} µg per ml; their numbers are listed in a table that does "
    "not exist.",
    "Films were scanned without automatic correction and cropped for display.",
    "Nuclei were outlined by a threshold on the smoothed signal, and touching nuclei were "
    "separated by hand.",
    "Cell borders were traced in every third picture and filled in between by interpolation.",
    "Curves were fitted by least squares with weights from the spread of the controls.",
    "Intervals are at 95 %, from a thousand random draws.",
    "Observers were told neither the group nor the aim.",
    "Code and pictures are dedicated to the public domain.",
)

END_MATTER = (
    (
        "Availability",
        "Pictures, values and the program that makes both are part of this document's source.",
    ),
    (
        "Acknowledgements",
        "We thank nobody, for help that was not given, and {organism}, for not existing. The "
        "work was paid for by no one.",
    ),
    (
        "Contributions",
        "All authors are invented. The first wrote the text, the second drew the pictures, and the "
        "others read both and agreed.",
    ),
    ("Competing interests", "None, there being no interests."),
)

FAMILY = ("Placeholder", "Nemo", "Specimen", "Lorem", "Ipsum", "Sample", "Mustermann", "Nomen")
FAMILY += ("Dolor", "Anon", "Blank", "Draft", "Margin", "Glyph", "Kerning", "Serif")
TOPICS = ("tension", "turnover", "transparency", "recovery", "layering", "patience", "stillness")
JOURNALS = ("Ann. Imag. Cell Biol.", "J. Hypoth. Pathol.", "Invent. Methods", "Proc. Nowhere Acad.")


@dataclass(frozen=True)
class Words:
    """What a paper is about: the words that fill the slots of the patterns."""

    protein: str
    partner: str
    process: str
    tissue: str
    cell: str
    organism: str
    treatment: str
    size: str = "62 kDa"


def _filled(rng: np.random.Generator, pattern: str, words: Words, figures: list[str]) -> str:
    sentence = pattern.format(
        **vars(words),
        figure=figures.pop(0) if "{figure}" in pattern and figures else "1",
        percent=int(rng.integers(11, 93)),
        minutes=int(rng.integers(4, 19)) * 5,
        count=int(rng.integers(24, 310)),
        spread=int(rng.integers(3, 20)),
        ratio=f"{rng.uniform(1.1, 4.2):.1f}",
        small=f"{rng.uniform(0.12, 0.89):.2f}",
    )
    return sentence[0].upper() + sentence[1:]


def body(seed: int, words: Words, figures: list[str], share: float) -> str:
    """The text of a paper as HTML: four sections, end matter and references.

    Args:
        seed: Chooses sentences and numbers.
        words: What the paper is about.
        figures: Panels to refer to in the results, in order, such as ``"2B"``.
        share: How much of the sentences to use, 0 to 1: text is cut to fit the pages.

    Returns:
        HTML with ``h2`` and ``p`` elements.
    """
    rng = np.random.default_rng([seed, 5])
    waiting = list(figures)
    cites = 0
    parts: list[str] = []
    sections = (
        ("Introduction", INTRODUCTION, True),
        ("Results", RESULTS, True),
        ("Discussion", DISCUSSION, True),
        ("Methods", METHODS, False),
    )
    for title, patterns, cited in sections:
        chosen = patterns[: max(4, round(len(patterns) * share))]
        parts.append(f"<h2>{title}</h2>")
        start = 0
        while start < len(chosen):
            stop = start + int(rng.integers(4, 7))
            stop = len(chosen) if len(chosen) - stop < 3 else stop
            sentences: list[str] = []
            for pattern in chosen[start:stop]:
                sentence = _filled(rng, pattern, words, waiting)
                if cited and rng.random() < 0.3 and cites < 30:
                    cites += 1
                    sentence = f"{sentence[:-1]}<sup>{cites}</sup>."
                sentences.append(sentence)
            parts.append(f"<p>{' '.join(sentences)}</p>")
            start = stop
    for title, text in END_MATTER:
        parts.append(f"<h2>{title}</h2><p>{text.format(**vars(words))}</p>")
    parts.append("<h2>References</h2>")
    for number in range(1, max(cites, 6) + 1):
        first, second = rng.choice(FAMILY, 2, replace=False)
        year = int(rng.integers(2004, 2026))
        volume, page = int(rng.integers(2, 90)), int(rng.integers(10, 900))
        topic = rng.choice(TOPICS)
        parts.append(
            f'<p class="ref">{number}. {first}, A. &amp; {second}, B. On the {topic} of '
            f"{words.tissue}. <i>{rng.choice(JOURNALS)}</i> <b>{volume}</b>, {page} ({year}).</p>"
        )
    return "".join(parts)
