"""What a run of the word-problem study says, in plain sentences with their numbers."""

from collections.abc import Iterator

from jaxlora.evaluate.schema import Method
from jaxlora.report import word_problems_laws as laws
from jaxlora.report import word_problems_levels as levels
from jaxlora.report import word_problems_ranked as ranked
from jaxlora.report import word_problems_readings as look
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import JOINT, Shown, combined, title
from jaxlora.report.word_problems_readings import Book, Place

NOTHING = "There is no finding: no base met its criteria, or nothing was asked."


def sentences(book: Book) -> list[str]:
    """Returns the outcome, the main thing first.

    Args:
      book: of a run.
    """
    places = look.dial(book)
    shown = _main(book, places[-1]) if places else None
    if shown is None:
        return [NOTHING]
    out = [_dial(book, places, shown), _law(book, places[-1], shown)]
    out += [_best(book, places[-1], shown), _verdicts(book, places)]
    out += [_leaderboard(book), _easy_to_hard(book)]
    return [x for x in out if x]


def _main(book: Book, place: Place) -> Shown | None:
    """The mean, or the first method in its place."""
    methods = look.methods(book, place)
    some = combined([x for x in methods if x is Method.MEAN] or methods)
    return next((x for x in some if look.read(book, place, x.use).measured), None)


def _dial(book: Book, places: list[Place], shown: Shown) -> str:
    """Solved at the ends of the dial, beside chance and the joint LoRA."""
    first, last = places[0], places[-1]
    level = look.chance(book, last).value
    joint = look.read(book, last, JOINT.use).value
    notes = [] if level is None else [f"chance {level:.2f}"]
    none = look.read(book, first, shown.use)
    text = (
        f"The {shown.label} of two experts solves "
        f"{look.read(book, last, shown.use).text()} of the problems that need both "
        f"where {_shared(last)}"
    )
    if first != last and none.measured:
        text += f", {none.text()} where {_shared(first, again=True)}"
    text += f" ({', '.join(notes)})" if notes else ""
    return text + ("." if joint is None else f"; one LoRA on both: {joint:.2f}.")


def _shared(place: Place, again: bool = False) -> str:
    if place.overlap == 1:
        return "they share a solution template"
    if place.overlap == 0:
        return "they share none" if again else "they share no solution template"
    return f"they share one in {place.overlap:.0%} of the second one's rows"


def _law(book: Book, place: Place, shown: Shown) -> str:
    """What is lost beyond the skills that the merge loses."""
    law = look.law(book, place, shown)
    kept = f"the product of the kept skills is {law.product.text()}"
    ratio = laws.ratio(law)
    if not ratio.measured:
        return ""
    words = {
        "holds": f"What is lost is what the merge loses of each skill: {kept}, and "
        f"both skills over it {ratio.text()}.",
        "below": f"More is lost than the merge loses of each skill: {kept}, and both "
        f"skills over it only {ratio.text()}.",
        "above": f"Less is lost than the two skills apart would say: {kept}, and both "
        f"skills over it {ratio.text()}.",
    }
    return words[laws.side(ratio)]


def _best(book: Book, place: Place, shown: Shown) -> str:
    """The best combination of the dial, if it is another."""
    some = combined(look.methods(book, place))
    best = max(some, key=lambda x: look.read(book, place, x.use).value or 0.0)
    value = look.read(book, place, best.use)
    if best.method == shown.method or not value.measured:
        return ""
    product = look.law(book, place, best).product
    kept = f" (product of its kept skills {product.value:.2f})"
    return (
        f"The best of the {len(some)} ways to combine that were asked along the dial "
        f"is {best.label}, with {value.text()}{kept if product.measured else ''}."
    )


def _verdicts(book: Book, places: list[Place]) -> str:
    parts = list(_judged(book, places))
    return f"Verdicts: {'; '.join(parts)}." if parts else ""


def _judged(book: Book, places: list[Place]) -> Iterator[str]:
    ends = dict.fromkeys((places[-1], places[0]))
    for place in ends:
        groups: dict[str, list[str]] = {}
        for shown in combined(look.methods(book, place)):
            label = look.label(book, place, shown.method)
            groups.setdefault(label, []).append(shown.label)
        words = [f"{label} ({', '.join(x)})" for label, x in groups.items() if label]
        if words:
            yield f"at overlap {place.overlap:g} {'; '.join(words)}"


def _leaderboard(book: Book) -> str:
    """The best method, and for how many methods the law holds."""
    some = ranked.ranked(book)
    if not some:
        return ""
    best, last = some[0], some[-1]
    sides = laws.sides(x.law for x in some)
    return (
        f"Of {len(some)} merges and routes the best is {_named(best)}, the last "
        f"{_named(last)}; the interval of both skills over the product of kept skills "
        f"holds 1 for {sides['holds']}, is below it for {sides['below']} and above it "
        f"for {sides['above']}."
    )


def _named(x: ranked.Ranked) -> str:
    return f"{title(x.method)} with {x.value.text()}"


def _easy_to_hard(book: Book) -> str:
    """Easy and medium experts of one skill, asked beyond what either saw."""
    table = next((x for x in levels.tables(book) if x.title == levels.ONE), None)
    if table is None or 3 not in table.levels:
        return ""
    at = table.levels.index(3)
    lines = dict(zip(table.names, table.readings, strict=True))
    names = ("mean of both", "easy expert alone", "medium expert alone")
    some = {x: lines.get(x, (Reading(),) * (at + 1))[at] for x in names}
    hard = lines.get("hard expert alone", (Reading(),) * (at + 1))[at]
    if not (some["mean of both"].measured and hard.measured):
        return ""
    alone = max(x.value or 0.0 for x in list(some.values())[1:])
    return (
        f"From easy to hard: the mean of an easy and a medium expert of one skill "
        f"solves {some['mean of both'].text()} of problems of three operations; the "
        f"better of the two alone {alone:.2f}, an expert of that level "
        f"{hard.value:.2f}."
    )
