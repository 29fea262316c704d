"""The exact head solvers: the optimum, the choice of the strength, and the data that real tasks bring."""

from __future__ import annotations

import numpy as np
import pytest

from keras_transfer import solvers
from keras_transfer.solvers import goals as goals_module
from keras_transfer.solvers import rows as rows_module
from keras_transfer.solvers import solve


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def blobs(
    count: int, width: int = 12, classes: int = 3, seed: int = 0, spread: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds, the same centres for every seed, with unequal means and scales."""
    centres = np.random.default_rng(99).normal(size=(classes, width))
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes)
    features = centres[labels] + spread * random.normal(size=(count, width))
    return (features * np.linspace(0.1, 20, width) + np.linspace(-50, 124, width)).astype(np.float32), labels


def tags(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and three independent labels of unequal frequency."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 6)).astype(np.float32)
    hidden = features[:, :3] * 1.5 + random.logistic(size=(count, 3)) - np.array([0.0, 1.0, 2.0])
    return features, (hidden > 0).astype(np.float32)


def standardised_objective(
    solution: solvers.Solution, features: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """The softmax objective, computed anew in float64."""
    weights = np.ones(len(features)) if weights is None else weights
    kernel = solution.kernel.astype(np.float64) * features.std(0, dtype=np.float64)[:, None]
    chances = softmax(features @ solution.kernel.astype(np.float64) + solution.bias)
    losses = -np.log(chances[np.arange(len(targets)), targets])
    return float((weights * losses).sum() / weights.sum() + 0.5 * solution.strength * (kernel**2).sum())


@pytest.mark.parametrize("strength", [1.0, 0.01, 1e-4])
def test_softmax_reaches_scikit_learns_optimum(strength: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, targets = blobs(300)
    solution = solve(features, targets, problem="softmax", classes=3, strengths=[strength], folds=0)
    standard = (features - features.mean(0)) / features.std(0)
    other = linear_model.LogisticRegression(C=1 / (strength * 300), tol=1e-8, max_iter=5000).fit(standard, targets)
    ours = softmax(features @ solution.kernel + solution.bias)
    np.testing.assert_allclose(ours, other.predict_proba(standard), atol=7e-4)


def test_logistic_reaches_scikit_learns_optimum_for_each_label() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, targets = tags(400)
    solution = solve(features, targets, problem="logistic", classes=3, strengths=[0.01], folds=0)
    standard = (features - features.mean(0)) / features.std(0)
    ours = 1 / (1 + np.exp(-(features @ solution.kernel + solution.bias)))
    for label in range(3):
        other = linear_model.LogisticRegression(C=1 / (0.01 * 400), tol=1e-8).fit(standard, targets[:, label])
        np.testing.assert_allclose(ours[:, label], other.predict_proba(standard)[:, 1], atol=2e-3)


def test_weights_count_as_repetitions() -> None:
    features, targets = blobs(120)
    repeats = np.random.default_rng(1).integers(1, 4, 120)
    weighted = solve(features, targets, problem="softmax", classes=3, strengths=[0.1], folds=0, sample_weights=repeats)
    # The moments are those of the rows whatever their weights: compare objectives, not rows written out repeatedly.
    unweighted = solve(features, targets, problem="softmax", classes=3, strengths=[0.1], folds=0)
    best = standardised_objective(weighted, features, targets, repeats)
    assert best < standardised_objective(unweighted, features, targets, repeats) - 1e-5
    random = np.random.default_rng(2)
    for _ in range(5):
        near = solvers.Solution(
            weighted.kernel + 1e-3 * random.normal(size=weighted.kernel.shape) / features.std(0)[:, None],
            weighted.bias,
            weighted.strength,
            0.0,
            {},
            0.0,
            "default",
        )
        assert standardised_objective(near, features, targets, repeats) > best - 1e-6


def test_class_weights_are_weights_of_their_examples() -> None:
    features, targets = blobs(150)
    by_class = np.array([1.0, 4.0, 0.5])
    one = solve(features, targets, problem="softmax", classes=3, strengths=[0.1], folds=0, class_weights=by_class)
    two = solve(
        features, targets, problem="softmax", classes=3, strengths=[0.1], folds=0, sample_weights=by_class[targets]
    )
    np.testing.assert_allclose(one.kernel, two.kernel, atol=1e-6)
    plain = solve(features, targets, problem="softmax", classes=3, strengths=[0.1], folds=0)
    picked = [softmax(features @ s.kernel + s.bias).argmax(1) for s in (one, plain)]
    assert (picked[0] == 1).sum() > (picked[1] == 1).sum()


def test_class_weights_of_labels_raise_their_probability() -> None:
    features, targets = tags(300)
    plain = solve(features, targets, problem="logistic", classes=3, strengths=[0.1], folds=0)
    more = solve(features, targets, problem="logistic", classes=3, strengths=[0.1], folds=0, class_weights=[1, 1, 5])
    logits = [features @ s.kernel + s.bias for s in (plain, more)]
    np.testing.assert_allclose(logits[0][:, :2], logits[1][:, :2], atol=0.05)
    assert logits[1][:, 2].mean() > logits[0][:, 2].mean() + 0.5


def test_raw_logits_are_the_standardised_ones() -> None:
    features, targets = blobs(200)
    weights = np.random.default_rng(0).normal(size=(13, 3))
    with rows_module.Workers(1) as workers:
        rows = rows_module.Rows.standardised(features, "features", workers)
        kernel, bias = rows.unfold(weights)
        standard = rows.chunk(slice(0, 200)) @ weights[:-1] + weights[-1]
    np.testing.assert_allclose(features @ kernel + bias, standard, atol=1e-4)
    np.testing.assert_allclose(rows.chunk(slice(0, 200)).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.chunk(slice(0, 200)).std(0), 1, atol=1e-5)


def test_a_feature_that_hardly_stirs_is_not_blown_up() -> None:
    features = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    features[:, 3] = 0
    features[5, 3] = 1e-4
    with rows_module.Workers(1) as workers:
        rows = rows_module.Rows.standardised(features, "features", workers)
    assert abs(rows.chunk(slice(0, 1000))[:, 3]).max() < 0.2


@pytest.mark.parametrize("problem", ["softmax", "logistic"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_is_that_of_the_loss(problem: goals_module.Problem, smoothing: float) -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 20) if problem == "softmax" else random.integers(0, 2, (20, 4))
    goals = goals_module.Goals.checked(
        targets, "targets", 20, problem, 4, random.uniform(0.5, 2, 20), [1, 2, 3, 1], smoothing
    )
    goals.deal(2, None, 0)
    members, s = np.arange(3), slice(0, 20)
    logits = random.normal(size=(20, 3, 4)).astype(np.float32)
    _, gradient = goals.train(logits.copy(), s, members)
    for where in [(0, 0, 0), (3, 1, 2), (7, 2, 1), (19, 0, 3)]:
        up, down = logits.astype(np.float64), logits.astype(np.float64)
        up[where] += 1e-4
        down[where] -= 1e-4
        slope = (goals.train(up, s, members)[0] - goals.train(down, s, members)[0]) / 2e-4
        assert gradient[where] == pytest.approx(slope, abs=1e-5)


def test_label_smoothing_lowers_confidence() -> None:
    features, targets = blobs(200, spread=0.3)
    sharp = solve(features, targets, problem="softmax", classes=3, strengths=[1e-4], folds=0)
    smooth = solve(features, targets, problem="softmax", classes=3, strengths=[1e-4], folds=0, label_smoothing=0.1)
    means = [softmax(features @ s.kernel + s.bias).max(1).mean() for s in (sharp, smooth)]
    assert means[0] > 0.98 > means[1] == pytest.approx(0.93, abs=0.03)


def test_memory_map_in_passes_gives_the_answer_of_memory(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = blobs(700)
    path = tmp_path / "features"
    stored = np.memmap(path, np.float16, "w+", shape=features.shape)
    stored[:] = features
    kept = solve(np.array(stored), targets, problem="softmax", classes=3)
    monkeypatch.setattr(rows_module, "KEPT_BYTES", 0)
    monkeypatch.setattr(rows_module, "CHUNK_VALUES", 500)
    read = solve(
        np.memmap(path, np.float16, "r", shape=features.shape), targets, problem="softmax", classes=3, threads=3
    )
    assert read.strength == kept.strength
    np.testing.assert_allclose(features @ read.kernel + read.bias, features @ kept.kernel + kept.bias, atol=5e-3)


def test_only_a_chunk_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = blobs(2000)

    class Spy:
        shape = features.shape
        most = 0

        def __getitem__(self, s: slice) -> np.ndarray:
            Spy.most = max(Spy.most, s.stop - s.start)
            return features[s]

    monkeypatch.setattr(rows_module, "KEPT_BYTES", 0)
    monkeypatch.setattr(rows_module, "CHUNK_VALUES", 1200)
    solve(Spy(), targets, problem="softmax", classes=3, strengths=[1.0], threads=2)
    assert 0 < Spy.most <= 100


def test_every_half_converts_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)[:, None]
    np.testing.assert_array_equal(rows_module._read(halves, slice(None)), halves.astype(np.float32))


def test_threads_and_repetition_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "CHUNK_VALUES", 300)
    features, targets = blobs(400)
    answers = [solve(features, targets, problem="softmax", classes=3, threads=t, seed=4) for t in (1, 1, 3)]
    for other in answers[1:]:
        np.testing.assert_array_equal(answers[0].kernel, other.kernel)
        assert answers[0].scores_by_strength == other.scores_by_strength


def test_validation_chooses_and_is_not_trained_on() -> None:
    features, targets = blobs(200)
    held, held_targets = blobs(100, seed=5)
    solution = solve(features, targets, problem="softmax", classes=3, validation=(held, held_targets))
    assert solution.chosen_by == "validation"
    assert solution.validation_loss == min(solution.scores_by_strength.values())
    alone = solve(features, targets, problem="softmax", classes=3, strengths=[solution.strength], folds=0)
    np.testing.assert_allclose(solution.kernel, alone.kernel, rtol=0.02, atol=2e-3)
    chances = softmax(held @ solution.kernel + solution.bias)[np.arange(100), held_targets]
    assert -np.log(chances).mean() == pytest.approx(solution.validation_loss, rel=0.01)


def test_the_path_ends_when_the_loss_rises() -> None:
    features, targets = blobs(60, width=40, spread=4)
    solution = solve(features, targets, problem="softmax", classes=3)
    tried = list(solution.scores_by_strength)
    assert tried == sorted(tried, reverse=True)
    assert len(tried) < len(solvers.DEFAULT_STRENGTHS)
    assert solution.strength == tried[-1 - solvers.RISES]


def test_a_tie_keeps_the_stronger() -> None:
    features = np.zeros((60, 4), np.float32)
    solution = solve(features, np.arange(60) % 3, problem="softmax", classes=3, strengths=[0.1, 1.0, 10.0])
    assert solution.strength == 10.0
    assert solution.validation_loss == pytest.approx(np.log(3), abs=0.01)
    np.testing.assert_array_equal(solution.kernel, 0)


def test_a_tiny_validation_set_is_pooled_with_folds() -> None:
    features, targets = blobs(90)
    held, held_targets = blobs(6, seed=5)
    solution = solve(features, targets, problem="softmax", classes=3, validation=(held, held_targets))
    assert solution.chosen_by == "validation and folds"
    assert solve(features, targets, problem="softmax", classes=3).chosen_by == "folds"


def test_joint_folds_are_those_solved_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = blobs(150)
    jointly = solve(features, targets, problem="softmax", classes=3)
    monkeypatch.setattr(solvers, "JOINT_PARAMETERS", 1)
    apart = solve(features, targets, problem="softmax", classes=3)
    assert apart.strength == jointly.strength
    assert apart.validation_loss == pytest.approx(jointly.validation_loss, rel=1e-3)


def test_groups_stay_whole_and_choose_more_regularisation() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 10)
    targets = groups % 3
    # Each group has a mark of its own, by which its examples are known in any fold that shares the group.
    features = (random.normal(size=(30, 40)) + 0.3 * np.eye(3)[np.arange(30) % 3] @ np.ones((3, 40)))[groups]
    features = (features + 0.05 * random.normal(size=features.shape)).astype(np.float32)
    blind = solve(features, targets, problem="softmax", classes=3)
    aware = solve(features, targets, problem="softmax", classes=3, groups=[f"photo {g}" for g in groups])
    assert aware.strength > blind.strength
    assert aware.validation_loss > blind.validation_loss + 0.5


def test_deal_is_stratified_and_balanced() -> None:
    strata = np.repeat([0, 1, 2], [50, 23, 7])
    fold = goals_module.deal(strata, 5, None, 0)
    for stratum in range(3):
        counts = np.bincount(fold[strata == stratum], minlength=6)[1:]
        assert counts.max() - counts.min() <= 1
    groups = np.random.default_rng(0).integers(0, 20, 80)
    fold = goals_module.deal(strata, 4, groups, 0)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    assert set(fold) == {1, 2, 3, 4}
    pure = np.repeat(np.arange(12), 5)
    fold = goals_module.deal(pure % 3, 4, pure, 0)
    for stratum in range(3):
        assert np.bincount(fold[pure % 3 == stratum]).tolist() == [0, 5, 5, 5, 5]


def test_deal_takes_an_empty_group_as_no_group() -> None:
    strata = np.arange(40) % 2
    np.testing.assert_array_equal(goals_module.deal(strata, 5, [""] * 40, 0), goals_module.deal(strata, 5, None, 0))
    fold = goals_module.deal(strata, 4, [""] * 30 + ["a"] * 10, 0)
    assert len(set(fold[30:])) == 1
    assert len(set(fold[:30])) > 1


def test_two_labels_a_class_and_many_more_features_than_examples() -> None:
    features, targets = blobs(10, width=300, classes=5, spread=0.3)
    solution = solve(features, targets, problem="softmax", classes=5)
    held, held_targets = blobs(100, width=300, classes=5, seed=1, spread=0.3)
    assert ((held @ solution.kernel + solution.bias).argmax(1) == held_targets).mean() > 0.9


def test_one_label_a_class_falls_back() -> None:
    features, targets = blobs(3, spread=0.1)
    solution = solve(features, targets, problem="softmax", classes=3)
    assert solution.chosen_by == "default"
    assert solution.strength == pytest.approx(solvers.FALLBACK_STRENGTH)
    assert np.isnan(solution.validation_loss)
    assert solution.scores_by_strength == {}
    assert (features @ solution.kernel + solution.bias).argmax(1).tolist() == targets.tolist()


def test_a_class_that_a_fold_lacks_does_not_decide() -> None:
    features, targets = blobs(61)
    targets = targets % 2
    targets[0] = 2  # its only example: whichever fold holds it out has never seen the class
    solution = solve(features, targets, problem="softmax", classes=3)
    assert np.isfinite(solution.kernel).all()
    assert solution.validation_loss < 1.0


def test_a_member_is_not_judged_by_a_class_it_never_saw() -> None:
    targets = np.array([0, 1] * 10 + [2])
    goals = goals_module.Goals.checked(targets, "targets", 21, "softmax", 3)
    goals.deal(5, None, 0)
    logits = np.zeros((21, 6, 3), np.float32)
    loss, weight = goals.held_out(logits, slice(0, 21), np.arange(6))
    assert weight == 20
    assert loss == pytest.approx(20 * np.log(3))
    labels = np.zeros((20, 2))
    labels[:10, 0], labels[0, 1] = 1, 1
    goals = goals_module.Goals.checked(labels, "targets", 20, "logistic", 2)
    goals.deal(2, None, 0)
    _, weight = goals.held_out(np.zeros((20, 3, 2), np.float32), slice(0, 20), np.arange(3))
    assert weight == 20 + (goals.fold != goals.fold[0]).sum()


def test_the_loss_on_folds_is_that_of_separate_fits() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, targets = blobs(60)
    found = solve(features, targets, problem="softmax", classes=3, strengths=[0.05], folds=3, seed=2)
    fold = goals_module.deal(targets, 3, None, 2)
    standard = (features - features.mean(0)) / features.std(0)
    losses = []
    for held in (1, 2, 3):
        # C weighs the sum of the losses: the same C is the same total penalty.
        fit = linear_model.LogisticRegression(C=1 / (0.05 * 60), tol=1e-8)
        fit.fit(standard[fold != held], targets[fold != held])
        chances = fit.predict_proba(standard[fold == held])
        losses.extend(-np.log(chances[range(len(chances)), targets[fold == held]]))
    assert found.validation_loss == pytest.approx(np.mean(losses), rel=2e-3)


def test_a_class_without_examples_is_improbable_and_finite() -> None:
    features, targets = blobs(90)
    solution = solve(features, targets, problem="softmax", classes=4)
    chances = softmax(features @ solution.kernel + solution.bias)
    assert np.isfinite(solution.bias).all()
    assert chances[:, 3].max() < 0.01
    features, targets = tags(80)
    targets[:, 1] = 0
    solution = solve(features, targets, problem="logistic", classes=3)
    assert np.isfinite(solution.bias).all()
    assert (features @ solution.kernel + solution.bias)[:, 1].max() < -2


def test_constant_features_get_zero_weights() -> None:
    features, targets = blobs(90)
    features[:, 4] = 123.456
    features[:, 5] = np.where(targets == 1, np.float32(1000), np.nextafter(np.float32(1000), np.float32(0)))  # rounding
    solution = solve(features, targets, problem="softmax", classes=3)
    np.testing.assert_array_equal(solution.kernel[4:6], 0)
    assert np.isfinite(solution.bias).all()


def test_quality_is_that_of_tuned_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    linear_model = pytest.importorskip("sklearn.linear_model")
    for load, classes in ((datasets.load_wine, 3), (datasets.load_breast_cancer, 2)):
        features, targets = load(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(features))
        half = len(order) // 2
        train, test = order[:half], order[half:]
        solution = solve(features[train], targets[train], problem="softmax", classes=classes)
        ours = softmax(features[test] @ solution.kernel + solution.bias)
        mean, scale = features[train].mean(0), features[train].std(0)
        other = linear_model.LogisticRegressionCV(
            Cs=6, cv=5, scoring="neg_log_loss", max_iter=2000, use_legacy_attributes=False, l1_ratios=(0,)
        )
        theirs = other.fit((features[train] - mean) / scale, targets[train]).predict_proba(
            (features[test] - mean) / scale
        )
        accuracy, loss = zip(
            *(
                ((p.argmax(1) == targets[test]).mean(), -np.log(p[range(len(p)), targets[test]]).mean())
                for p in (ours, theirs)
            ),
            strict=True,
        )
        assert accuracy[0] >= accuracy[1] - 0.012
        assert loss[0] <= loss[1] + 0.02


def test_blas_threads_are_restored() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    features, targets = blobs(30)
    solve(features, targets, problem="softmax", classes=3)
    assert [library["num_threads"] for library in threadpoolctl.threadpool_info()][: len(before)] == before


def test_not_finite_rows_are_counted() -> None:
    features, targets = blobs(30)
    features[[3, 9]] = np.nan
    features[9, 0] = np.inf
    with pytest.raises(ValueError, match="2 of 30 rows"):
        solve(features, targets, problem="softmax", classes=3)
    good, _ = blobs(30)
    with pytest.raises(ValueError, match="validation features.*2 of 30 rows"):
        solve(good, targets, problem="softmax", classes=3, validation=(features, targets))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((0, 4))}, "features: expected"),
        ({"features": np.zeros((6, 2, 2))}, r"shape \(6, 2, 2\)"),
        ({"targets": np.array([0, 1, 2, 0, 1, 3])}, "whole numbers from 0 to 2"),
        ({"targets": np.zeros((6, 3))}, "targets: expected shape"),
        ({"problem": "logistic"}, "targets: expected shape"),
        ({"problem": "logistic", "targets": np.full((6, 3), 0.5)}, "zeros and ones"),
        ({"problem": "regression"}, "problem: expected"),
        ({"strengths": []}, "strengths: expected"),
        ({"strengths": [0.0]}, "strengths: expected"),
        ({"sample_weights": np.zeros(6)}, "above 0"),
        ({"sample_weights": -np.ones(6)}, "sample_weights: expected 6"),
        ({"class_weights": [1.0]}, "class_weights: expected 3"),
        ({"groups": ["a"]}, "groups: expected one an example"),
        ({"label_smoothing": 1.0}, "label_smoothing: expected"),
        ({"validation": (np.zeros((2, 5)), np.zeros(2, int))}, "expected 4 features"),
    ],
)
def test_wrong_arguments_are_named(changes: dict, message: str) -> None:
    arguments = {
        "features": np.random.default_rng(0).normal(size=(6, 4)),
        "targets": np.arange(6) % 3,
        "problem": "softmax",
        "classes": 3,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        solve(arguments.pop("features"), arguments.pop("targets"), **arguments)
