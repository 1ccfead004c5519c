# Reference curves of cv.glmnet for the tests in Python.
#
#   Rscript tests/data/cv_glmnet.R IN OUT
#
# IN holds <name>.csv (features, then y; no header); OUT receives curves.json.
# tests/data/cv_glmnet.py exports the one and stores the other: run that one instead.

suppressPackageStartupMessages(library(glmnet))
folders <- commandArgs(trailingOnly = TRUE)

numbers <- function(value) {
  paste0("[", paste(formatC(value, digits = 12, format = "g", width = 1),
    collapse = ", "), "]")
}

# data set, family, measures, alpha, standardize, intercept, folds
cases <- list(
  list("diabetes", "gaussian", c("deviance", "mae"), 1, TRUE, TRUE, 7),
  list("diabetes", "gaussian", "deviance", 1, FALSE, TRUE, 7),
  list("breast_cancer", "binomial", c("deviance", "class", "auc", "mse", "mae"), 0.5,
    TRUE, TRUE, 7),
  list("wine", "multinomial", c("deviance", "class", "mse", "mae"), 1, TRUE, TRUE, 7),
  list("PoissonExample", "poisson", c("deviance", "mse", "mae"), 1, FALSE, TRUE, 7),
  list("diabetes", "gaussian", "deviance", 1, TRUE, FALSE, 7),
  list("breast_cancer", "binomial", c("deviance", "class"), 0.5, TRUE, FALSE, 7),
  list("BinomialExample", "binomial", c("deviance", "class"), 1, TRUE, TRUE, 40)
)

lines <- character()
for (case in cases) {
  table <- as.matrix(read.csv(file.path(folders[1], paste0(case[[1]], ".csv")),
    header = FALSE))
  p <- ncol(table) - 1
  x <- unname(table[, seq(p)])
  y <- unname(table[, p + 1])
  fold <- (seq_len(nrow(x)) - 1) %% case[[7]] + 1
  whole <- glmnet(x, y, family = case[[2]], alpha = case[[4]],
    standardize = case[[5]], intercept = case[[6]], nlambda = 30, lambda.min.ratio = 1e-3)
  lambda <- whole$lambda
  for (measure in case[[3]]) {
    cv <- cv.glmnet(x, y, family = case[[2]], alpha = case[[4]],
      standardize = case[[5]], intercept = case[[6]], lambda = lambda, foldid = fold, thresh = 1e-14,
      maxit = 1e7, type.measure = measure)
    stopifnot(length(cv$lambda) == length(lambda))
    lines <- c(lines, sprintf(paste0(
      '{"data": "%s", "family": "%s", "measure": "%s", "l1_ratio": %s, ',
      '"standardize": %s, "intercept": %s, "folds": %d, "lambda": %s, "mean": %s, "se": %s, ',
      '"lambda_min": %s, "lambda_1se": %s}'),
      case[[1]], case[[2]], measure, case[[4]], tolower(case[[5]]), tolower(case[[6]]), case[[7]],
      numbers(cv$lambda), numbers(cv$cvm), numbers(cv$cvsd),
      formatC(cv$lambda.min, digits = 12, format = "g"),
      formatC(cv$lambda.1se, digits = 12, format = "g")))
  }
}
writeLines(paste0("[", paste(lines, collapse = ",\n"), "]"),
  file.path(folders[2], "curves.json"))
