"""The `countries` sample: questions on short passages about countries, in the form of SQuAD 2.0.

Passages and questions are written from the package's facts. Countries are never shared between splits. Some questions
have no answer: they ask for a fact that the passage does not state, or for that of another country.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.samples.country_wordings import LANGUAGES, OPENINGS, SEEN, STATEMENTS, UNSEEN

SEED = 0
SHARES = {"train": 0.6, "validation": 0.15, "test": 0.25}
"""Shares of the countries."""
PASSAGES = {"train": 4, "validation": 3, "test": 2, "test_unseen_wording": 2}
"""Passages a country."""
FACTS_STATED = (5, 6, 7)
"""How many facts a passage states, drawn evenly."""
UNANSWERABLE = 2
"""Questions without an answer a passage."""
OTHER_COUNTRY_SHARE = 0.2
"""Share of these that ask for a stated fact, but of another country."""
MOST_IN_LIST = 4
"""A fact with more values (languages, neighbours) is not stated: its sentence would be a list only."""

Facts = dict[str, str]


def write(files: Path, folder: Path) -> None:
    """Writes `train.json`, `validation.json`, `test.json` and `test_unseen_wording.json`.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    sources = sorted((files / "countryinfo" / "data").glob("*.json"))
    countries = read_countries(json.loads(source.read_text(encoding="utf-8")) for source in sources)
    for split, data in write_splits(countries).items():
        (folder / f"{split}.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_countries(raw: Iterable[Mapping[str, Any]]) -> dict[str, Facts]:
    """The facts of each country that has enough of them, as they are written in a passage.

    Args:
        raw: the package's description of each country.

    Returns:
        By country, in the order of names: its facts by kind.
    """
    raw = list(raw)
    names = {entry["ISO"]["alpha3"]: entry["name"] for entry in raw if entry.get("ISO", {}).get("alpha3")}
    countries = {}
    for entry in raw:
        facts = _facts(entry, names)
        if len(facts) >= max(FACTS_STATED):
            countries[entry["name"]] = facts
    return dict(sorted(countries.items()))


def _facts(entry: Mapping[str, Any], names: Mapping[str, str]) -> Facts:
    """What can be said of one country."""
    facts = {
        "capital": _text(entry.get("capital")),
        "location": _text(entry.get("subregion")),
        "population": _number(entry.get("population")),
        "area": _number(entry.get("area")),
        "language": _listed([LANGUAGES.get(code, "") for code in entry.get("languages") or []]),
        "currency": _text(*(entry.get("currencies") or [])[:1]),
        "demonym": _text(entry.get("demonym")),
        "calling_code": _text(*(entry.get("callingCodes") or [])[:1]),
        "domain": _text(*(entry.get("tld") or [])[:1]),
        "neighbours": _listed([names.get(code, "") for code in entry.get("borders") or []]),
    }
    return {kind: value for kind, value in facts.items() if value}


def _text(value: Any = None) -> str:
    """A plain text, "" for anything else: a demonym such as "Bosnian,Herzegovinian" has no one span."""
    return value.strip() if isinstance(value, str) and "," not in value else ""


def _number(value: Any) -> str:
    """A number from 1 as it is written in a text, "" for none."""
    return f"{value:,.0f}" if isinstance(value, (int, float)) and value >= 1 else ""


def _listed(values: Sequence[str]) -> str:
    """`a, b and c`; "" if one is unknown, or if there are none or too many."""
    if not values or not all(values) or len(values) > MOST_IN_LIST:
        return ""
    return " and ".join([*([", ".join(values[:-1])] if values[:-1] else []), values[-1]])


def write_splits(countries: Mapping[str, Facts]) -> dict[str, dict[str, Any]]:
    """The data of each split in SQuAD's form.

    Args:
        countries: facts by country and kind.
    """
    names = list(countries)
    random.Random(SEED).shuffle(names)
    first, second = (round(len(names) * share) for share in (SHARES["train"], SHARES["train"] + SHARES["validation"]))
    parts = {"train": names[:first], "validation": names[first:second], "test": names[second:]}
    parts["test_unseen_wording"] = parts["test"]
    splits = {}
    for split, members in parts.items():
        generator = random.Random(f"{SEED} {split}")
        wordings = UNSEEN if split == "test_unseen_wording" else SEEN
        articles = []
        for name in members:
            others = [n for n in members if n not in name and name not in n]
            articles.append(
                {
                    "title": name,
                    "paragraphs": [
                        _paragraph(name, countries[name], others, wordings, generator, f"{split}-{name}-{number}")
                        for number in range(PASSAGES[split])
                    ],
                }
            )
        splits[split] = {"version": "v2.0", "data": articles}
    return splits


def _paragraph(
    name: str,
    facts: Facts,
    others: Sequence[str],
    wordings: Mapping[str, Sequence[str]],
    generator: random.Random,
    prefix: str,
) -> dict[str, Any]:
    """One passage and its questions."""
    context, starts = write_passage(name, facts, generator)
    asked = [(kind, name, [{"text": facts[kind], "answer_start": start}]) for kind, start in starts.items()]
    for _ in range(UNANSWERABLE):
        if others and generator.random() < OTHER_COUNTRY_SHARE:
            asked.append((generator.choice(list(starts)), generator.choice(others), []))
        else:
            asked.append((generator.choice([kind for kind in STATEMENTS if kind not in starts]), name, []))
    questions: dict[str, dict[str, Any]] = {}
    for kind, country, answers in asked:
        question = generator.choice(wordings[kind]).format(c=country)
        plain = {"id": f"{prefix}-{len(questions)}", "question": question, "answers": answers}
        questions.setdefault(question, {**plain, "is_impossible": not answers})
    return {"context": context, "qas": list(questions.values())}


def write_passage(name: str, facts: Facts, generator: random.Random) -> tuple[str, dict[str, int]]:
    """A passage that states some of a country's facts.

    Args:
        name: the country.
        facts: its facts by kind.
        generator: draws which facts, their order and their sentences.

    Returns:
        The passage, and by kind where the fact's value starts in it, in characters.
    """
    stated = generator.sample(list(facts), min(generator.choice(FACTS_STATED), len(facts)))
    sentences, starts = [generator.choice(OPENINGS).format(c=name)], {}
    length = len(sentences[0])
    for number, kind in enumerate(stated):
        # Without an opening, the first sentence must say which country this is.
        choices = [s for s in STATEMENTS[kind] if length or number or "{c}" in s]
        before, after = generator.choice(choices).format(c=name, v="\0").split("\0")
        length += bool(length)
        starts[kind] = length + len(before)
        sentences.append(before + facts[kind] + after)
        length += len(sentences[-1])
    return " ".join(s for s in sentences if s), starts
