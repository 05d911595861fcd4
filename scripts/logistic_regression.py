#!/usr/bin/env python3
"""Fits a logistic regression on frozen features: the accuracy that fine-tuning must beat to be worth its bytes.

Must not look at the evaluation set before the end: the regularisation is chosen on training examples alone.

    logistic_regression.py FEATURES

FEATURES is what the trainer's example `frozen_features` writes. Features are standardised; the strength of the L2
penalty is chosen by 5-fold cross-validation. Needs scikit-learn, safetensors and numpy.
"""

import sys

import numpy
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(path):
    file = load_file(path)
    # The scaler is inside the folds: a fold that is tested must not have moved the means.
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    strengths = {"logisticregression__C": numpy.logspace(-4, 1, 11)}
    search = GridSearchCV(model, strengths, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    search.fit(file["train.features"], file["train.labels"])
    examples, width = file["train.features"].shape
    labels = file["evaluation.labels"]
    majority = numpy.bincount(labels).max() / len(labels)
    print(f"{examples} training examples with {width} features, {len(labels)} evaluation examples")
    print(f"C = {search.best_params_['logisticregression__C']:.3g}, cross-validated accuracy {search.best_score_:.4f}")
    print(f"evaluation accuracy {search.score(file['evaluation.features'], labels):.4f}, majority {majority:.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
