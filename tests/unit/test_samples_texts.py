"""The text samples, written from small made-up packages."""

import csv
import io
import json
import random
import tarfile

import pytest

from keras_transfer.samples import countries, movie_reviews
from keras_transfer.samples.country_wordings import LANGUAGES, OPENINGS, SEEN, STATEMENTS, UNSEEN


def test_ratings_are_read_in_either_encoding():
    raw = b'1\t2.5\tA clich\xc3\xa9 \r\n2\t-0.6\tcaf\xe9, "quoted"\n\nbroken line\n'
    assert movie_reviews.read_ratings(raw) == [(2.5, "A cliché"), (-0.6, 'café, "quoted"')]


def test_unclear_ratings_and_copies_are_left_out():
    ratings = [(0.49, "unclear"), (-0.49, "unclear too"), (0.5, "good"), (-0.5, "bad"), (2.0, "GOOD"), (1.0, "")]
    assert sorted(movie_reviews.choose_rows(ratings)) == [("bad", "negative"), ("good", "positive")]


def test_the_choice_of_rows_does_not_depend_on_their_order():
    ratings = [(1.0 if n % 2 else -1.0, f"text {n}") for n in range(100)]
    rows = movie_reviews.choose_rows(ratings)
    assert rows == movie_reviews.choose_rows(reversed(ratings))
    assert [text for text, _ in rows] != sorted(text for text, _ in rows)


def test_movie_reviews_are_two_tables(tmp_path):
    lines = [f'{n}\t{(-1) ** n * (1 + n / 9000)}\tReview, number "{n}"\r\n' for n in range(4100)]
    table = "".join(lines).encode()
    inner = tmp_path / movie_reviews.ARCHIVE
    inner.parent.mkdir(parents=True)
    with tarfile.open(inner, "w:gz") as archive:
        member = tarfile.TarInfo(movie_reviews.TABLE)
        member.size = len(table)
        archive.addfile(member, io.BytesIO(table))
    folder = tmp_path / "made"
    folder.mkdir()
    movie_reviews.write(tmp_path, folder)
    rows = {}
    for split, count in (("train", 3000), ("test", 1000)):
        with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows[split] = list(csv.DictReader(file))
        assert len(rows[split]) == count
        for row in rows[split]:
            number = int(row["text"].split('"')[1])
            assert row["label"] == ("negative" if number % 2 else "positive")
    assert not {r["text"] for r in rows["train"]} & {r["text"] for r in rows["test"]}


FACTS = {
    "capital": "Kabul",
    "location": "Southern Asia",
    "population": "26,023,100",
    "area": "652,230",
    "language": "Pashto and Uzbek",
    "currency": "AFN",
    "demonym": "Afghan",
    "calling_code": "93",
    "domain": ".af",
    "neighbours": "Iran, Pakistan and China",
}


def _entry(name, alpha3, **changes):
    plain = {
        "name": name,
        "ISO": {"alpha3": alpha3},
        "capital": f"{name} City",
        "subregion": "Southern Asia",
        "population": 1234567,
        "area": 640679,
        "languages": ["fr", "de", "it"],
        "currencies": ["EUR", "USD"],
        "demonym": f"{name}ese",
        "callingCodes": ["33"],
        "tld": [".fr"],
        "borders": [],
    }
    return {**plain, **changes}


def test_facts_are_written_as_in_a_text():
    raw = [_entry("Aland", "AAA", borders=["BBB", "CCC"]), _entry("Bland", "BBB"), _entry("Cland", "CCC")]
    facts = countries.read_countries(raw)["Aland"]
    assert facts["population"] == "1,234,567"
    assert facts["language"] == "French, German and Italian"
    assert facts["neighbours"] == "Bland and Cland"
    assert facts["currency"] == "EUR"
    assert "neighbours" not in countries.read_countries(raw)["Bland"]


@pytest.mark.parametrize(
    "changes, missing",
    [
        ({"languages": ["fr", "xx"]}, "language"),
        ({"languages": ["fr", "de", "it", "en", "es"]}, "language"),
        ({"borders": ["ZZZ"]}, "neighbours"),
        ({"demonym": "Bosnian,Herzegovinian"}, "demonym"),
        ({"capital": ["Vatican City"]}, "capital"),
        ({"area": 0.49}, "area"),
        ({"callingCodes": []}, "calling_code"),
    ],
)
def test_a_fact_without_one_span_is_left_out(changes, missing):
    facts = countries.read_countries([_entry("Aland", "AAA", **changes)])["Aland"]
    assert missing not in facts and len(facts) >= 8


def test_a_country_with_few_facts_is_left_out():
    assert countries.read_countries([_entry("Aland", "AAA", tld=[], area=None, capital="")]) == {}


def test_every_fact_has_enough_wordings_and_none_is_both_seen_and_unseen():
    assert list(STATEMENTS) == list(SEEN) == list(UNSEEN)
    assert set(FACTS) == set(STATEMENTS)
    seen = [wording for wordings in SEEN.values() for wording in wordings]
    unseen = [wording for wordings in UNSEEN.values() for wording in wordings]
    assert all(len(w) >= 8 for w in SEEN.values()) and all(len(w) >= 3 for w in UNSEEN.values())
    assert all(len(s) >= 4 for s in STATEMENTS.values()) and len(OPENINGS) >= 4
    assert len(set(seen + unseen)) == len(seen + unseen)
    assert all(wording.count("{c}") == 1 for wording in seen + unseen)
    assert all(s.count("{v}") == 1 for statements in STATEMENTS.values() for s in statements)
    for statements in STATEMENTS.values():
        assert any("{c}" in s for s in statements)  # so that a passage without an opening can name its country
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)


def test_answers_start_where_they_say_also_after_accents():
    for seed in range(200):
        passage, starts = countries.write_passage("Curaçao", FACTS, random.Random(seed))
        assert len(starts) in countries.FACTS_STATED
        assert passage.count("Curaçao") >= 1 and "\0" not in passage and "{" not in passage
        for kind, start in starts.items():
            assert passage[start : start + len(FACTS[kind])] == FACTS[kind]


@pytest.fixture(scope="module")
def splits():
    raw = [_entry(f"Land{a}{b}", f"{a}{b}X", area=1000 + 7 * ord(a) + ord(b)) for a in "ABCDEFGH" for b in "ABCDE"]
    return countries.write_splits(countries.read_countries(raw))


def _questions(data):
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield article["title"], paragraph["context"], question


def test_countries_are_split_and_both_tests_have_the_same(splits):
    titles = {split: [a["title"] for a in data["data"]] for split, data in splits.items()}
    assert {split: len(t) for split, t in titles.items()} == {
        "train": 24,
        "validation": 6,
        "test": 10,
        "test_unseen_wording": 10,
    }
    assert titles["test"] == titles["test_unseen_wording"]
    assert not set(titles["train"]) & set(titles["test"]) and not set(titles["validation"]) & set(titles["test"])
    assert not set(titles["train"]) & set(titles["validation"])


def test_the_form_is_squad_with_and_without_answers(splits):
    for data in splits.values():
        assert data["version"] == "v2.0"
        shares, ids = [], []
        for title, context, question in _questions(data):
            ids.append(question["id"])
            shares.append(question["is_impossible"])
            assert question["is_impossible"] == (not question["answers"])
            for answer in question["answers"]:
                assert title in question["question"]
                assert context[answer["answer_start"] :].startswith(answer["text"])
        assert len(set(ids)) == len(ids)
        assert 0.15 < sum(shares) / len(shares) < 0.35


def test_questions_without_an_answer_ask_for_what_is_not_stated(splits):
    other = 0
    for title, context, question in _questions(splits["train"]):
        if question["is_impossible"]:
            other += title not in question["question"]
            if title in question["question"]:
                kind = next(k for k, ws in SEEN.items() if question["question"] in [w.format(c=title) for w in ws])
                stated = [
                    q["question"]
                    for a in splits["train"]["data"]
                    for p in a["paragraphs"]
                    if p["context"] == context
                    for q in p["qas"]
                    if q["answers"]
                ]
                assert not any(s in [w.format(c=title) for w in SEEN[kind]] for s in stated)
    assert other > 5


def test_held_out_wordings_are_in_their_test_only(splits):
    for split, data in splits.items():
        expected = UNSEEN if split == "test_unseen_wording" else SEEN
        patterns = {w.replace("{c}", "") for wordings in expected.values() for w in wordings}
        names = [a["title"] for a in data["data"]]
        for _, _, question in _questions(data):
            text = question["question"]
            (named,) = [n for n in names if n in text]
            assert text.replace(named, "") in patterns


def test_the_files_are_json_and_the_same_every_time(tmp_path):
    source = tmp_path / "files" / "countryinfo" / "data"
    source.mkdir(parents=True)
    for number in range(20):
        name = f"Ländchen{number:02d}"
        (source / f"{number}.json").write_text(json.dumps(_entry(name, f"A{number}")), encoding="utf-8")
    texts = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        countries.write(tmp_path / "files", folder)
        texts.append({p.name: p.read_text(encoding="utf-8") for p in folder.iterdir()})
    assert texts[0] == texts[1]
    assert set(texts[0]) == {"train.json", "validation.json", "test.json", "test_unseen_wording.json"}
    assert "Ländchen" in texts[0]["train.json"]
