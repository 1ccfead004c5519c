"""Reference fits of R's glmnet 4.1, and the program that makes them.

    python tests/data/glmnet.py

runs `glmnet.R` (needs `Rscript` and the R package glmnet: `apt-get install
r-base-core r-cran-glmnet`) and rewrites `tests/data/glmnet/`; takes about two
minutes. Tests only read that folder:

`<data set>.npz`, one each of QuickStartExample, BinomialExample, MultinomialExample
and PoissonExample, the simulated example data of glmnet (GPL-2) bit by bit, the first
300 rows of the last two: `X` [n, p], `y` [n] float64; classes are 0, 1, or 1, 2, 3. The
other data sets are scikit-learn's own, not stored: diabetes with `scaled=False`,
breast_cancer, wine, and digits with X / 16.

`results.json.xz`: `versions`, and `cases`, by name:

    data, family   as above; gaussian, binomial, multinomial or poisson
    family_function  True: R's `family = gaussian()`, not `family = "gaussian"`
    thresh         of glmnet
    arguments      as given to glmnet, `.` being `_`: always alpha, standardize,
                   intercept; else, where given, weights [n], offset [n],
                   penalty_factor [p] (as given, Infinity for excluded),
                   lower_limits, upper_limits, type_multinomial
    nulldev        deviance of the intercept alone, weights summing to what they sum to
    lambda, df, dev_ratio  [L] of the automatic grid, all of it
    dfmat          [K, L] of multinomial: nonzero per class; df: nonzero in any class
    at             [m] indices into the grid, from 0, of
    intercept      [m] or [m, K]
    coef           [m, p] or [m, p, K], in units of X as given

Lambda has 17 digits, `dev_ratio` 15, coefficients 12. The objective is

    sum_i a_i loss_i + lambda sum_j v_j (alpha |s_j b_j| + (1 - alpha)/2 (s_j b_j)^2)

with a = weights / sum, loss half the squared error or the negative log-likelihood, s_j
the standard deviation of column j under a (1/n, and centred also where there is no
intercept) or 1 without `standardize`, v_j the penalty factors times p / their sum,
excluded ones counting 1. Grouped: the norm over classes in place of |s_j b_j|. Limits
bound b_j as given. What to know when comparing:

  * `family = "gaussian"` divides the (1 - alpha)/2 term by the standard deviation of y
    (less offset, under a; about 0 without intercept); `gaussian()` does not.
  * The first coefficients of a grid belong to lambda = 9.9e35, not to lambda[0]: for
    alpha = 0 they are nought, not the ridge answer.
  * lambda[0] = max_j |gradient_j| / (s_j v_j) / max(alpha, 1e-3) at the model of
    intercept and columns of v_j = 0, whatever the limits; grouped: the norm over
    classes.
  * The grid goes down to 1e-4 lambda[0] (all n > p here) but ends, from its fifth
    lambda on, where dev_ratio > 0.999 or grew by less than 1e-5 in a step (gaussian:
    1e-5 dev_ratio; poisson: 1e-4 dev_ratio in four steps). A limit of 0 turns the
    second rule off.
  * Fitted probabilities are clipped at 1e-9 in `dev_ratio` (errors up to 3e-9 here).
  * Of multinomial, the intercepts sum to 0 over classes; ungrouped lasso: the median
    of each row of `coef` is 0; grouped: each row sums to 0.
  * `thresh` bounds squared steps: optimality holds to about its root. Largest breach of
    the optimality conditions here, relative to lambda: 7e-7, where thresh is 1e-20
    (multinomial, binomial; gaussian examples: 5e-8); wine 5e-5, digits 3e-4; at the
    default of 1e-7: breast_cancer 0.25, digits 0.9.
"""

import json
import lzma
import math
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from sklearn import datasets

HERE = Path(__file__).resolve().parent


def export(folder):
    """Writes scikit-learn's data as `<name>.csv`: features, then y."""
    loaded = {
        "diabetes": datasets.load_diabetes(scaled=False),
        "breast_cancer": datasets.load_breast_cancer(),
        "wine": datasets.load_wine(),
        "digits": datasets.load_digits(),
    }
    for name, data in loaded.items():
        X = data.data / 16 if name == "digits" else data.data
        table = np.column_stack([X, data.target])
        np.savetxt(folder / f"{name}.csv", table, delimiter=",", fmt="%.17g")


def rounded(value, digits):
    """The number, or nested lists of numbers, to so many significant digits."""
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if value and math.isfinite(value) else value


def packed(case):
    """One case of glmnet.R in the form that the docstring above describes."""
    classes = case.pop("classes")
    case["arguments"] = {"alpha": 1, "intercept": True} | case["arguments"]
    case["dev_ratio"] = rounded(case["dev_ratio"], 15)
    case["intercept"] = rounded(case["intercept"], 12)
    if classes:
        shape = (len(case["at"]), -1, classes)
        case["coef"] = np.reshape(case["coef"], shape).tolist()
    case["coef"] = rounded(case["coef"], 12)
    return case


def main():
    """Export, fit in R, pack."""
    target = HERE / "glmnet"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        inputs, outputs = Path(temporary, "in"), Path(temporary, "out")
        inputs.mkdir()
        outputs.mkdir()
        export(inputs)
        subprocess.run(["Rscript", HERE / "glmnet.R", inputs, outputs], check=True)
        for file in outputs.glob("*.csv"):
            table = np.loadtxt(file, delimiter=",")
            np.savez_compressed(
                target / f"{file.stem}.npz", X=table[:, :-1], y=table[:, -1]
            )
        written = {f.stem: json.loads(f.read_text()) for f in outputs.glob("*.json")}
    versions = written.pop("versions")
    cases = {name: packed(written[name]) for name in sorted(written)}
    text = json.dumps({"versions": versions, "cases": cases}, separators=(",", ":"))
    (target / "results.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))
    for file in sorted(target.iterdir()):
        print(f"{file.name:24} {file.stat().st_size:7} bytes")


if __name__ == "__main__":
    main()
