"""Reference curves of `cv.glmnet` (glmnet 4.1), and the program that makes them.

    python tests/data/cv_glmnet.py

runs `cv_glmnet.R` (needs `Rscript` and the R package glmnet: `apt-get install
r-base-core r-cran-glmnet`) and rewrites `tests/data/glmnet/curves.json`: a list of

    data         diabetes (`scaled=False`), breast_cancer, wine: scikit-learn's own;
                 PoissonExample, BinomialExample: glmnet's, in this folder
    family       gaussian, binomial, multinomial or poisson
    measure      `type.measure` of cv.glmnet
    l1_ratio     its alpha
    standardize  by each fold's own training rows
    intercept    whether there is one
    folds        how many; row i (from 0) is in fold i mod them. Of fewer than 3 rows
                 each cv.glmnet takes the standard error over rows
    lambda       [L] given to `glmnet` as `lambda=`, thresh 1e-14
    mean, se     [L] cvm and cvsd
    lambda_min, lambda_1se
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
from sklearn import datasets

HERE = Path(__file__).resolve().parent


def main():
    """Export, run R, keep what it wrote."""
    loaded = {
        "diabetes": datasets.load_diabetes(scaled=False),
        "breast_cancer": datasets.load_breast_cancer(),
        "wine": datasets.load_wine(),
    }
    tables = {name: np.c_[data.data, data.target] for name, data in loaded.items()}
    for name in ("PoissonExample", "BinomialExample"):
        with np.load(HERE / f"glmnet/{name}.npz") as example:
            tables[name] = np.c_[example["X"], example["y"]]
    with tempfile.TemporaryDirectory() as folder:
        for name, table in tables.items():
            file = Path(folder, f"{name}.csv")
            np.savetxt(file, table, delimiter=",", fmt="%.17g")
        subprocess.run(["Rscript", HERE / "cv_glmnet.R", folder, folder], check=True)
        text = Path(folder, "curves.json").read_text()
    (HERE / "glmnet/curves.json").write_text(text)


if __name__ == "__main__":
    main()
